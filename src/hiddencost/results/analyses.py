"""The analyses of a study's networks and finished runs, by name: of what its jobs are, and what makes its tables.

The names are those of `study.analyses`. The workflow reads this before any job does: functions are named here, and
imported when they compute.
"""

from dataclasses import dataclass
from pkgutil import resolve_name


@dataclass(frozen=True)
class Analysis:
    """An analysis.

    Attributes:
        tabulated_by: "module:function" of what makes its tables. Its arguments: the files of all its jobs, the
            study's table of runs, and the paths of `tables` by their names.
        tables: their names.
        of: the wildcards of its jobs, each of which has a rule of its own in analyses.smk.
        compares: where its jobs are of pairs, "module:function" of what evaluates a compressed network beside the
            dense one on a dataset, by the rule `compare`. Its arguments: the files (`runs.pairs.PairInputs`), the
            table that it writes, and the device that computes.
        scores: where its jobs score by code that is apart from their own (`digest.APART`), "module:function" of what
            returns that code's digest.
    """

    tabulated_by: str
    tables: tuple[str, ...]
    of: tuple[str, ...] = ("backbone", "dataset")
    compares: str | None = None
    scores: str | None = None

    def digest(self) -> str | None:
        """Return the digest of the code that its jobs score by, see `scores`."""
        return resolve_name(self.scores)() if self.scores else None


ANALYSES = {
    "shift": Analysis(
        "hiddencost.results.shift:write", ("shift", "shift_cost"), scores="hiddencost.runs.shift_table:digest"
    ),
    "latency": Analysis("hiddencost.results.latency:write", ("latency",), of=("backbone",)),
    "why": Analysis(
        "hiddencost.results.why:write",
        ("measures", "why"),
        compares="hiddencost.runs.measured:write",
        scores="hiddencost.runs.measures:digest",
    ),
    "split": Analysis("hiddencost.results.split:write", ("swaps", "split"), compares="hiddencost.runs.swaps:write"),
}

"""The analyses of a study's networks and finished runs, by name: of what its jobs are, and what makes its tables.

The names are those of `study.analyses`. The workflow reads this before any job does: functions are named here, and
imported when they compute.
"""

from dataclasses import dataclass


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
    """

    tabulated_by: str
    tables: tuple[str, ...]
    of: tuple[str, ...] = ("backbone", "dataset")
    compares: str | None = None


ANALYSES = {
    "shift": Analysis("hiddencost.results.shift:write", ("shift", "shift_cost")),
    "latency": Analysis("hiddencost.results.latency:write", ("latency",), of=("backbone",)),
    "why": Analysis("hiddencost.results.why:write", ("measures", "why"), compares="hiddencost.runs.measured:write"),
    "split": Analysis("hiddencost.results.split:write", ("swaps", "split"), compares="hiddencost.runs.swaps:write"),
}

"""Inputs and settings of the rules in analyses.smk: what is asked of networks and finished runs, without training."""

from itertools import product

from hiddencost.digest import code_digest, module_file
from hiddencost.files import canonical, sha256_text
from hiddencost.jobs import layout
from hiddencost.jobs.call import Call, code
from hiddencost.jobs.grid import to_run
from hiddencost.results.analyses import ANALYSES


def asked(call: Call) -> list[str]:
    """Return the analyses of a call, by name; a partial one, which makes nothing for its tables, has none."""
    return [] if call.partial else call.study.analysis


def evaluated(call: Call, analysis: str) -> list[str]:
    """Return the files of all jobs of an analysis."""
    of, names = ANALYSES[analysis].of, to_run(call)
    pattern = layout.ANALYSIS[of].replace("{analysis}", analysis)
    each = product(*(names[wildcard] for wildcard in of))
    return [call.path(pattern, **dict(zip(of, values, strict=True))) for values in each]


def tables(call: Call, analysis: str) -> dict[str, str]:
    """Return the tables of an analysis, by name."""
    return {name: f"{call.output}/{layout.TABLES[name]}" for name in ANALYSES[analysis].tables}


def all_tables(call: Call) -> list[str]:
    """Return the tables of all analyses of a call."""
    return [path for analysis in asked(call) for path in tables(call, analysis).values()]


def tabulate(call: Call, analysis: str) -> dict:
    """Return which analysis makes tables, and the digest of the code that does."""
    module = module_file(ANALYSES[analysis].tabulated_by.partition(":")[0])
    return {"analysis": analysis, "code": sha256_text(canonical([code(call.root, "tabulate"), code_digest(module)]))}


def latency(call: Call, backbone: str) -> dict:
    """Return what the latency of a backbone depends on beside its files."""
    return {"canvas": call.study.canvas(call.study.backbone(backbone))}

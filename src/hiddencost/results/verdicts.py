"""Verdicts: what a study's runs say of each claim."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from hiddencost import catalog
from hiddencost.compression.registry import CONTROLS, applied
from hiddencost.messages import listed
from hiddencost.results import relation, tables, why
from hiddencost.results.cells import dataset_units, numbers, once
from hiddencost.results.chance import surely_above
from hiddencost.results.claims import Cells, Claim, compared_measures, factor
from hiddencost.results.evidence import judge_cells
from hiddencost.results.pooled import NETWORK, networks, pooled
from hiddencost.results.relation import Paper
from hiddencost.results.shift import with_growth
from hiddencost.runs.metrics import METRICS
from hiddencost.runs.packfile import AXES
from hiddencost.runs.sides import COST, SPLIT
from hiddencost.study.sparsifiers import SPARSIFIERS

VERDICTS = {  # and what they mean, for a reader
    "supported": "The numbers establish the claim. A claim about the mean is supported if the whole 95 % interval "
    "of the mean lies where the claim holds; one about every cell if the interval of each single cell does; one "
    "about most cells, or about some, if more than half of them surely do, or at least one. A claim that there is "
    "no order is supported if some cells are surely above zero and some surely below.",
    "not refuted": "The claim is about every cell. The mean of each cell lies where the claim holds, and so does "
    "the whole interval of the mean over cells, but not every single cell is sure.",
    "contradicted": "The numbers establish that the claim does not hold. A claim about the mean is contradicted "
    "if the whole interval lies where the claim does not hold; one about every cell if at least one cell surely "
    "lies there; one about some cells if every cell does; one about most cells if at least half do. A claim that "
    "there is no order is contradicted if most cells surely lie on one side of zero.",
    "undecided": "The numbers establish neither that the claim holds nor that it does not.",
    "at chance": "In no cell does what is compared surely do better than guessing, so that nothing is said of the "
    "claim.",
    "not run": "The study has no cell of the claim, or none with a result.",
}
COLUMNS = ["claim", "text", "measure", "compares", "bound", "verdict", "effect", "low", "high", "cells", "published"]
COLUMNS += ["note", "relation", "source"]
COLUMN_OF = {  # axes of claims: the columns of runs
    "backbones": "backbone",
    "datasets": "dataset",
    "except_datasets": "dataset",
    "methods": "method",
    "shots": "shots",
}
CALLED = {"shots": "number of shots is"}  # how a value of an axis is told, if not as "backbone is"
PAIRED = ["dataset", "seed"]


def write(
    runs: str | Path,
    claims: dict[str, dict],
    path: str | Path,
    paper: dict,
    own: list[str],
    made: list[str],
    analysed: Mapping[str, str | Path] = MappingProxyType({}),
) -> None:
    """Write the verdicts on claims; see `judge`.

    Args:
        runs: path of the study's table.
        claims: by name, as `Claim.model_dump` returns them.
        path: of the table of verdicts.
        paper: what catalog/paper.yaml holds.
        own: names of the catalog's checkpoints of which the study names files of its own.
        made: of those in whose place it has networks of another study.
        analysed: the tables of the study's analyses that claims are put to the test on, by name: `swaps`, `measures`,
            `shift`.
    """
    tested = {name: tables.read(table) for name, table in analysed.items()}
    checked = {name: Claim.model_validate(claim) for name, claim in claims.items()}
    tables.write(judge(pd.read_parquet(runs), checked, Paper.model_validate(paper), own, made, **tested), path)


def judge(
    runs: pd.DataFrame,
    claims: dict[str, Claim],
    paper: Paper | None = None,
    own: Collection[str] = (),
    made: Collection[str] = (),
    swaps: pd.DataFrame | None = None,
    measures: pd.DataFrame | None = None,
    shift: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Put each claim to the test on the runs of a study.

    A claim of the mean is supported where the whole interval lies where it holds, contradicted where the whole
    interval lies where it does not, else undecided. What decides one of every, most or some cells, or one of no
    order, `evidence.judge_cells` says. A cell that compares two of which neither surely does better than guessing
    (see `chance`, of the runs of the claim) is no evidence of these, nor is one of a difference of differences where
    one of them is so; where all cells are such, a study says nothing of any claim: at chance.

    Args:
        runs: a row a run, as in runs.parquet.
        claims: by name.
        paper: the study that `relation` holds cells against; None: that of the catalog.
        own: names of checkpoints whose files are the user's own. They are no published networks, unless nobody can
            have those otherwise, as they cannot be downloaded.
        made: names of checkpoints in whose place are networks that another study made. They are no published
            networks either: what they say of a claim that names those is a note beside its verdict.

    Returns:
        A row a claim: what it has `stated`; `verdict`, one of `VERDICTS`; `effect`, its 95 % interval `low`, `high`
        (see `pooled.pooled`) and `published`, the effect as published, all in points; `cells`, how many comparisons
        (of a backbone, dataset, method and shots with another) have a result; a `note`: what is missing, whether the
        interval holds the published effect, what it speaks for, how many cells are at chance, how many of the others
        are otherwise, and what the ECE of the paper's code would have said; and `relation`, in what the cells differ
        from the paper's.
    """
    paper = paper or Paper.model_validate(catalog.load("paper"))
    published = {name for name in own if not catalog.checkpoint(name).unavailable}
    runs = counted(runs.assign(replaced=runs["checkpoint"].isin([*published, *made])))
    runs["budgets"] = runs["number"].map(runs["shots"].groupby(runs["number"]).agg(",".join))  # whose result it is
    if swaps is None or swaps.empty:
        runs = runs.assign(**dict.fromkeys([COST, *SPLIT], np.nan))
    else:
        runs = runs.merge(swaps[[*AXES, "dense", COST, *SPLIT]], how="left", on=[*AXES, "dense"])
    runs = with_growth(runs, shift)
    judged = []
    for name, claim in claims.items():
        explained = claim.explained_by is not None
        found = _explained(runs, claim, measures) if explained else _judged(runs, claim, paper, own, made)
        judged.append({"claim": name} | claim.stated | found)
    return pd.DataFrame(judged, columns=COLUMNS)


def counted(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs with what `differences` asks of them, once for many claims: the `number` of each (see
    `cells.numbers`), and what `pooled.networks` tells of its backbone."""
    of_networks = networks(runs)
    runs = runs.drop(columns=of_networks.columns, errors="ignore").join(of_networks, on="backbone")
    return runs.assign(number=numbers(runs))


def count(verdicts: pd.Series) -> str:
    """Say how often each verdict was given: "2 supported, 1 contradicted, 3 undecided, 11 not run"."""
    return ", ".join(f"{(verdicts == verdict).sum()} {verdict}" for verdict in VERDICTS)


def _judged(runs: pd.DataFrame, claim: Claim, paper: Paper, own: Collection[str], made: Collection[str]) -> dict:
    column, _ = compared_measures()[claim.measure]
    judged = _test(runs, claim, column)
    rows, as_published = judged.pop("rows"), column in METRICS and METRICS[column].as_published
    judged |= {"published": claim.published, "relation": None}
    if rows is not None:
        judged["relation"] = relation.relation(rows, claim, _spoken_of(claim, paper), own, made, paper)
        if judged["verdict"] != "at chance" and as_published and 0 in (claim.more_than, claim.less_than):
            published = _test(runs, claim, as_published)
            differs = "differs" if published["verdict"] != judged["verdict"] else "agrees"
            judged["notes"].append(f"the {column.upper()} of the paper's code {differs}: {_in_words(published)}")
    judged["notes"] += _of_made(runs, claim, column, made)
    return judged | {"note": "; ".join(judged.pop("notes"))}


def _explained(runs: pd.DataFrame, claim: Claim, measures: pd.DataFrame | None) -> dict:
    """Return the verdict on a claim of what goes with the cost, on the runs whose measures a study has: unless it
    names networks of the compressed ones, as in `why.correlations`."""
    judged: dict[str, Any] = {
        "verdict": "not run",
        "cells": 0,
        "note": "not in this study: no measures of its networks",
    }
    if measures is None or measures.empty:
        return judged
    cells = claim.cells.model_copy(update={"backbones": claim.cells.backbones or ["compressed"]})
    found = measures[(measures["measure"] == claim.explained_by) & _mask(runs, measures, cells)]
    correlation, low, high, ranked, unit = why.correlate(found)
    if np.isnan(correlation):
        return judged | {"cells": ranked, "note": unit}
    judged = {"effect": correlation, "cells": ranked, "note": f"a rank correlation, over {unit}"}
    if np.isnan(low):
        return judged | {"verdict": "undecided"}
    return judged | {"verdict": _of_interval(claim, low, high), "low": low, "high": high}


def _of_made(runs: pd.DataFrame, claim: Claim, column: str, made: Collection[str]) -> Iterator[str]:
    """Say what comes of a claim that names published networks with those that a study here made in their place."""
    if not made:
        return
    taken = runs.assign(replaced=runs["replaced"] & ~runs["checkpoint"].isin(made))
    if any((_mask(runs, runs, side) != _mask(taken, taken, side)).any() for side in _backbones_of(claim)):
        judged = _test(taken, claim, column)
        if judged["effect"] is not None:
            yield f"with networks that a study here trained in place of published ones: {_in_words(judged)}"


def _backbones_of(claim: Claim) -> list[Cells]:
    """Return the cells and sides of a claim, of each its backbones alone."""
    return [Cells(backbones=side.backbones) for side in (claim.cells, claim.left, claim.right) if side]


def _spoken_of(claim: Claim, paper: Paper) -> list[str]:
    """Return the names of those of the paper's networks that a claim speaks of."""
    known = paper.backbones()
    named = [_mask(known, known, side) for side in _backbones_of(claim) if side.backbones]
    named = named or [known["backbone"].notna()]
    return known.loc[np.logical_or.reduce(named), "backbone"].to_list()


def _cell(pairs: pd.DataFrame) -> list[str]:
    """Return the columns that say which cells are compared."""
    return [name for name in pairs if name not in ("seed", "difference")]


def _in_words(judged: dict) -> str:
    text = f"{judged['verdict']}, {judged['effect']:+.3g}"
    return text if judged["low"] is None else f"{text} ({judged['low']:+.3g} to {judged['high']:+.3g})"


def _test(runs: pd.DataFrame, claim: Claim, column: str) -> dict:
    compared = differences(runs, claim, column)
    cells = compared.groupby(_cell(compared), dropna=False)
    cells = cells["difference"].agg(["mean", "std", "count", "skew"])
    pairs, ran = compared.dropna(subset="difference"), cells[cells["count"] > 0]
    judged: dict[str, Any] = {"verdict": "not run", "effect": None, "low": None, "high": None}
    judged |= {"cells": len(ran), "rows": None}
    if not len(ran):
        missing = f"none of {len(cells)} cells has a result" if len(cells) > 1 else "its cell has no result"
        return judged | {"notes": [missing if len(cells) else _why_not_there(runs, claim)]}
    notes = []
    if len(pairs) < len(compared):
        notes.append(f"{len(compared) - len(pairs)} of {len(compared)} pairs missing")
    judged["effect"], bounds, speaks_for = pooled(pairs, fixed=claim.cells.datasets is not None)
    judged["verdict"] = "undecided"
    if bounds:
        judged["low"], judged["high"] = bounds
        judged["verdict"] = _of_interval(claim, *bounds)
        if claim.published is not None:
            holds = "holds" if bounds[0] <= claim.published <= bounds[1] else "does not hold"
            notes.append(f"the interval {holds} the published value")
    notes.append(speaks_for)
    with_dense = compared_measures()[claim.measure][1] is not None
    rows = judged["rows"] = relation.compared(runs, pairs, with_dense)
    # a difference of two that guess is none, nor is what a side of two such adds
    ran_once = rows.drop_duplicates("number")
    surely = rows["number"].isin(ran_once.loc[surely_above(ran_once), "number"])
    above = surely.groupby([rows["pair"], rows["difference"]]).any().groupby("pair").all()
    above = above.groupby(pairs.groupby(_cell(pairs), dropna=False).ngroup()).all().to_numpy()  # by row of `ran`
    if not above.all():
        notes.append(f"at chance in {(~above).sum()} of {len(ran)} cells")
    if not above.any():
        return judged | {"verdict": "at chance", "notes": notes}
    judged["verdict"], of_cells = judge_cells(claim, ran[above], judged["verdict"])
    if len(ran) > 1:
        notes.append(of_cells if above.all() else f"of the other{'s' if above.sum() > 1 else ''}: {of_cells}")
    return judged | {"notes": notes}


def _why_not_there(runs: pd.DataFrame, claim: Claim) -> str:
    """Say what of a claim is not in a study."""
    missing = []
    for side in filter(None, (claim.cells, claim.left, claim.right)):
        for axis in sorted(side.named - {"except_datasets"}):
            names = getattr(side, axis)
            if not _mask(runs, runs, Cells.model_construct(**{axis: names})).any():
                called = CALLED.get(axis, f"{axis.removesuffix('s')} is")
                missing.append(f"no {called} {listed(names, 'or')}")
    return f"not in this study: {'; '.join(missing) or 'it has no two such runs to compare'}"


def _of_interval(claim: Claim, low: float, high: float) -> str:
    """Return where an interval lies: wholly where the claim holds, wholly where it does not, or on both sides."""
    below, above = claim.bounds
    if below < low and high < above:
        return "supported"
    return "contradicted" if high < below or above < low else "undecided"


def differences(runs: pd.DataFrame, claim: Claim, column: str) -> pd.DataFrame:
    """Return what a claim compares.

    Args:
        runs: a row a run, as `counted` returns it.
        claim: says which cells, and of what measure.
        column: of runs, whose values are compared, in the unit of the claim's metric.

    Returns:
        A row a pair of runs, each pair once (see `cells.once`): their `difference`, in points (empty where a run of
        the pair has no result), what the pair shares (dataset, seed, ...) and, as `..._left` and `..._right`, what it
        does not.
    """
    metric, sign = compared_measures()[claim.measure]
    values = runs[["dense", "dataset", "method", "shots", "seed", *NETWORK]].assign(
        difference=factor(metric) * runs[column].where(runs["status"] == "ok"), run=runs["number"]
    )
    if claim.share is not None:
        values["difference"] -= claim.share * runs[COST]
    if sign:
        keys = ["dense", "dataset", "method", "shots", "seed"]
        dense = values.rename(columns={"dense": "own", "backbone": "dense"})[[*keys, "difference", "run"]]
        values = values[values["backbone"] != values["dense"]].merge(dense, on=keys, suffixes=("", "_dense"))
        of_dense = values.pop("difference_dense")  # what the cost split says of a run is against it already
        values["difference"] = sign * (values["difference"] - (0 if column in SPLIT else of_dense))
    values = values[_mask(runs, values, claim.cells)]
    if claim.left is None or claim.right is None:
        return once(values)
    named = [COLUMN_OF[axis] for axis in claim.left.named]
    shared = [axis for axis in (*PAIRED, "method", "shots") if axis not in named]
    shared += NETWORK if "backbone" not in named else []
    if "backbone" in named and claim.networks == "same":
        shared, values = [*shared, "dense"], values[values["dense"].notna()]
    sides = [values[_mask(runs, values, side)] for side in (claim.left, claim.right)]
    pairs = sides[0].merge(sides[1], on=shared, suffixes=("_left", "_right"))
    pairs["difference"] = pairs.pop("difference_left") - pairs.pop("difference_right")
    return once(pairs)


def _mask(runs: pd.DataFrame, values: pd.DataFrame, cells: Cells) -> pd.Series:
    mask = pd.Series(True, index=values.index)
    if cells.backbones:
        backbones = runs.drop_duplicates("backbone")
        named = [any(_is(backbone, kind) for kind in cells.backbones) for _, backbone in backbones.iterrows()]
        mask &= values["backbone"].isin(backbones.loc[named, "backbone"])
    for axis in cells.named - {"backbones"}:
        column, names = values[COLUMN_OF[axis]], [str(value) for value in getattr(cells, axis)]
        named = column.isin(names)
        if COLUMN_OF[axis] == "dataset":  # a name stands for the variants of it, too
            named |= dataset_units(column).isin(names)
        mask &= ~named if axis == "except_datasets" else named
    return mask


def _is(backbone: pd.Series, kind: str) -> bool:
    """Whether a backbone (its `checkpoint`, `compression`, `control`) is of a kind that `Cells.backbones` names."""
    if kind in CONTROLS or isinstance(backbone["control"], str):
        return backbone["control"] == kind
    entries = applied(backbone["compression"])
    if backbone.get("replaced") and (kind in catalog.checkpoints() or kind in SPARSIFIERS):
        return False  # the user's own file, under the name of published weights
    if kind in catalog.checkpoints():
        return backbone["checkpoint"] == kind and backbone["compression"] == catalog.checkpoint(kind).compression
    match kind:
        case "dense":
            return not entries
        case "compressed":
            return bool(entries)
        case "sparse":
            return bool(entries) and not any(entry.quantises for entry in entries)
        case "quantised":
            return bool(entries) and all(entry.quantises for entry in entries)
        case _:  # of the paper's algorithms, the published networks: those that a study trains are others
            trained_here = kind in SPARSIFIERS and backbone["checkpoint"] not in catalog.checkpoints()
            return {entry.kind for entry in entries} == {kind} and not trained_here

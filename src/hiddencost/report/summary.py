"""What the report says in words: headline, costs, the best, caveats and warnings."""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from hiddencost.figures import style
from hiddencost.methods.registry import METHODS
from hiddencost.results.cells import distinct_pairs, numbers
from hiddencost.results.chance import ARM, surely_above
from hiddencost.results.matched import LOST, compressed_backbones
from hiddencost.results.pooled import pooled
from hiddencost.results.relation import AS_IN_PAPER
from hiddencost.results.verdicts import counted, differences
from hiddencost.runs.metrics import METRICS

LONG = 1_000_000  # bytes of an image that is not kept exactly


def measures() -> list[dict]:
    """Return the metrics that the charts can show: `key` (the column), `label`, `factor` and `unit` of what is shown,
    and `cost`, the sign that makes a cost of the difference, dense minus backbone; None where tables hold none."""
    return [
        {
            "key": name,
            "label": metric.label,
            "factor": metric.factor,
            "unit": metric.unit,
            "cost": (1 if metric.higher_is_better else -1) if metric.paired else None,
        }
        for name, metric in METRICS.items()
    ]


def headline(summary: pd.DataFrame, runs: pd.DataFrame) -> list[dict]:
    """Return what compression costs in accuracy under prompting and under each other method.

    Args:
        summary: the study's table of cells.
        runs: its table of runs, which tells cells of the same runs: budgets and names that stand for one.

    Returns:
        A row a `method`: its `cost`, in points, the mean over compressed backbones and all that they are compared in,
        its 95 % interval `low`, `high` (None where there is none) and what this `speaks_for` (see `pooled.pooled`);
        of how many `cells` it is, copies of a cell left out, and in so many of these the 95 % interval lies `over`
        zero.
    """
    compressed = compressed_backbones(runs)
    cells = distinct_pairs(summary[summary["backbone"].isin(compressed) & (summary["paired_seeds"] > 0)], runs)
    above = cells["accuracy_dense_minus_backbone_low"] > 0
    pairs = differences(counted(runs), LOST, "accuracy").dropna(subset="difference")
    pairs = pairs[pairs["backbone"].isin(compressed)]
    names = {name: "visual prompting" if method.prompts else method.label for name, method in METHODS.items()}
    rows = []
    for method, of_method in cells.groupby(cells["method"].map(names), sort=False):
        cost, bounds, speaks_for = pooled(pairs[pairs["method"].map(names) == method], fixed=False)
        told = {"method": method, "cost": cost, "speaks_for": speaks_for, "cells": len(of_method)}
        told["low"], told["high"] = bounds or (None, None)
        rows.append(told | {"over": int(above[of_method.index].sum())})
    return rows


def costs(means: pd.DataFrame, axes: dict, upstream: pd.DataFrame) -> list[dict]:
    """Return what the backbones that are compared with another one cost, over all budgets.

    Args:
        means: the study's table.
        axes: what the page filters by: its `backbone`s and `method`s.
        upstream: as `upstream.reached` returns it.

    Returns:
        A row such a backbone, as of `axes`, with what it is `of` for each method: its mean `cost` in accuracy
        (points), with the interval `low`, `high` and the number of `cells`; and its `top1` upstream, with its
        interval, `low` to `high`, where it was measured on photos, and that of the `other`, in %, None where it is
        not known.
    """
    paired = means[(means["shots"] == means["shots"].iloc[0]) & means["cost"].notna()]
    shown = ["cost", "low", "high", "cells"]
    cost_of = {(row["backbone"], row["method"]): row for row in to_records(paired[["backbone", "method", *shown]])}
    none = dict.fromkeys(shown)
    known = upstream.astype(object).where(upstream.notna(), None).to_dict("index")
    unknown = dict.fromkeys(("top1", "low", "high"))
    other = paired.drop_duplicates("backbone").set_index("backbone")["dense"]
    return [
        backbone
        | {"of": [cost_of.get((backbone["name"], method["name"]), none) for method in axes["method"]]}
        | known.get(backbone["name"], unknown)
        | {"other": known.get(other[backbone["name"]], unknown)["top1"]}
        for backbone in axes["backbone"]
        if backbone["name"] in other
    ]


def against_paper(claims: list[dict]) -> tuple[list[dict], str]:
    """Return claims with what sets theirs apart from the paper's study, and what does so of all of them alike.

    Args:
        claims: rows of the table of verdicts.

    Returns:
        The rows, their `relation` without what all that were tested have in common; and this, joined by semicolons:
        "" where it is nothing, or where one was tested.
    """
    parts = [claim["relation"].split("; ") for claim in claims if claim["relation"]]
    shared = [part for part in parts[0] if all(part in others for others in parts)] if len(parts) > 1 else []
    if shared == [AS_IN_PAPER]:
        shared = []
    rows = []
    for claim in claims:
        own = [part for part in (claim["relation"] or "").split("; ") if part not in shared]
        rows.append(claim | {"relation": "; ".join(own) or None})
    return rows, "; ".join(shared)


def caveats(runs: pd.DataFrame, shared: str) -> list[dict]:
    """Return, as rows of `warnings`, what the numbers do not say.

    Args:
        runs: the study's table.
        shared: what sets all claims apart from the paper's study, see `against_paper`.
    """
    rows = []
    if shared:
        why = f"all that the claims compare differs from the paper's in this, the paper's value in brackets: {shared}"
        rows.append({"what": "this is not the paper's study", "why": why, "logs": []})
    finished = style.finished(runs)
    learned = finished[finished["control"].isna()]
    arms = learned[~numbers(learned).duplicated()]
    arms = arms.assign(above=surely_above(arms)).drop_duplicates(ARM)
    if guesses := int((~arms["above"]).sum()):
        what = f"{guesses} of {len(arms)} cells of networks that have learned are not surely better than guessing"
        why = "a difference between two that guess says nothing of compression: such cells stay in means, and are no "
        why += "evidence where a claim is on every, most or some cells"
        rows.append({"what": what, "why": why, "logs": []})
    return rows


def best(summary: pd.DataFrame) -> list[dict]:
    """Return the cell of highest mean accuracy on each data set, controls included."""
    done = summary.dropna(subset="accuracy_mean")
    return to_records(done.loc[done.groupby("dataset", sort=False)["accuracy_mean"].idxmax()])


def devices(runs: pd.DataFrame) -> list[dict]:
    """Return on what the finished runs were trained, each once: `device`, `precision`, how many `runs`, and their
    `seconds`."""
    finished = style.finished(runs)
    return to_records(count_runs(finished[~numbers(finished).duplicated()], ["device", "precision"]))


def warnings(
    runs: pd.DataFrame, recipes: list[dict], gates: list[dict], state: dict, results: Path, beside: Path
) -> list[dict]:
    """Return what a reader must know before trusting the numbers.

    Args:
        runs: the study's table.
        recipes: as `provenance.recipes` returns them.
        gates: as `provenance.gates` returns them.
        state: as `provenance.checkout` returns it.
        results: the study's folder, with logs/.
        beside: the report's folder.

    Returns:
        A row a warning: `what`, `why`, and the `logs` that tell more, as paths from the report's folder.
    """
    rows, job_of = [], {name: method.job for name, method in METHODS.items()}

    def warn(what: str, why: str, logs: Iterable[str] = ()) -> None:
        written = (results / "logs" / log for log in logs)
        existing = [os.path.relpath(log, beside) for log in written if log.exists()]
        rows.append({"what": what, "why": why, "logs": existing})

    for recipe in recipes:
        if recipe["other"]:
            names = ", ".join(recipe["methods"])
            why = f"{', '.join(recipe['other'])}; as the study was when they were trained: {recipe['settings']}"
            warn(f"{recipe['runs']} runs ({names}) are of another recipe than the study states now", why)
    for gate in gates:
        if gate["verified"] is False:
            name = gate["backbone"]
            warn(f"{name} failed its verification", "; ".join(gate["reasons"]), [f"verify_backbone/{name}.log"])
    failed = runs[runs["status"] != "ok"]
    for (status, reason), group in failed.groupby(["status", "reason"], sort=False, dropna=False):
        names, datasets = (_enumerated(style.order(group, axis)) for axis in ("backbone", "dataset"))
        group = group.assign(job=group["method"].map(job_of))
        packs = group[["job", "backbone", "dataset", "seed"]].drop_duplicates()
        logs = [f"{job}/{backbone}/{dataset}/seed{seed}.log" for job, backbone, dataset, seed in packs.to_numpy()]
        why = reason if isinstance(reason, str) else "no reason was told"
        warn(f"{len(group)} of {len(runs)} runs {status}: {names}; on {datasets}", why, logs)
    short = runs[runs["classes_short"] > 0].groupby(["dataset", "shots"], sort=False)["classes_short"].max()
    for (dataset, shots), classes in short.items():
        why = f"{int(classes)} classes of {dataset} have fewer training images, and give all that they have"
        warn(f"{style.shots_label(shots)} of {dataset} are fewer", why)
    alone = style.order(runs[runs["dense"].isna()], "backbone")
    if alone:
        warn(f"nothing to compare {_enumerated(alone)} with", "the study has no dense network of theirs")
    seeds = runs["seed"].nunique()
    if seeds == 1:
        warn("one seed", "no interval can be told from one")
    elif seeds == 2:
        warn("two seeds", "their intervals are wide, and their standard deviations rough")
    finished = style.finished(runs)
    ways = finished.groupby(finished["method"].map(job_of))[["device", "precision"]].nunique(dropna=False)
    if (ways > 1).any(axis=None):
        warn("runs of a method come from several kinds of hardware or precision", "each rounds in its own way")
    if state["changed"]:
        changed = f"{len(state['changed'])} files differ from commit {state['commit'][:12]}"
        warn("the checkout was not clean when this report was written", changed)
    return rows


def unlisted(folder: Path, drawn: set[str]) -> list[dict]:
    """Return a warning, as of `warnings`, where a folder of figures holds others than those of the study.

    They are left where they are, as they may be somebody's own.

    Args:
        folder: of the figures.
        drawn: names of the study's files.
    """
    others = sorted(path.name for path in folder.glob("[!.]*") if path.name not in drawn)
    why = f"of an earlier state of the study, or not of it: {_enumerated(others)}"
    return [{"what": "figures/ holds other files, too", "why": why, "logs": []}] if others else []


def _enumerated(names: list[str]) -> str:
    shown = 3
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def count_runs(runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Return how many `runs` have each combination of values of some columns, and the `seconds` of their training."""
    groups = runs.groupby(columns, sort=False, dropna=False)["train_seconds"]
    return groups.agg(runs="size", seconds="sum").reset_index()


def to_records(table: pd.DataFrame) -> list[dict]:
    """Return a table's rows, None where a value is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")

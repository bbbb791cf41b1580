"""The page of a finding, rendered from the tables beside it: no number on it is written by hand.

    python docs/findings/render.py docs/findings/cost                 writes README.md anew
    python docs/findings/render.py docs/findings/cost results/cost    takes the tables and figures of a study first

`tests/test_findings.py` renders each page again and compares it byte for byte.
"""

import json
import shutil
import sys
from collections.abc import Iterable
from itertools import product
from pathlib import Path

import pandas as pd
from jinja2 import Environment, StrictUndefined

from hiddencost import catalog
from hiddencost.files import atomic
from hiddencost.messages import listed
from hiddencost.methods.registry import METHODS
from hiddencost.report import provenance
from hiddencost.report.summary import against_paper, to_records
from hiddencost.results import tables
from hiddencost.results.cells import numbers
from hiddencost.results.chance import surely_above
from hiddencost.results.claims import Claim
from hiddencost.results.intervals import CONFIDENCE
from hiddencost.results.matched import EVERY_KIND, compressed_backbones
from hiddencost.results.upstream import reached
from hiddencost.results.verdicts import VERDICTS, judge
from hiddencost.runs.packfile import AXES

TEMPLATE = Path(__file__).with_name("page.md.j2")
TABLES = ["runs.parquet", "summary.csv", "claims.csv", "matched.csv", "upstream.csv", "mappings.parquet"]
TABLES += ["remapped.parquet"]
ANALYSES = ["split.csv", "why.csv", "shift_cost.csv", "latency.csv"]  # of studies that ask for them
JOBS = "jobs.csv"  # what the study's jobs took, as its benchmarks say
FIGURES = ("glance", "accuracy", "cost", "movement", "split", "why", "shift")
KINDS = ("compressed", "sparse", "quantised")
PARTS = {"mean": "effect", "low": "low", "high": "high"}
HOUR = 3600  # seconds
Guesses = set[tuple[str, str, str]]  # see `guesses`


def take(results: Path, folder: Path) -> None:
    """Copy what a page is rendered from out of a study's results.

    Args:
        results: the study's folder, with tables/, figures/ and benchmarks/.
        folder: of the page; figures that are there already are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name in [*TABLES, *(name for name in ANALYSES if (results / "tables" / name).exists())]:
        shutil.copyfile(results / "tables" / name, folder / name)
    tables.write(pd.DataFrame(provenance.jobs(results)), folder / JOBS)
    for old in folder.glob("*.png"):
        old.unlink()
    for figure in sorted((results / "figures").glob("*.png")):
        if figure.stem.startswith(FIGURES):
            shutil.copyfile(figure, folder / figure.name)


def render(folder: Path) -> str:
    """Return the page of a folder of tables, as Markdown."""
    analyses = [name for name in ANALYSES if (folder / name).exists()]
    read = {name.partition(".")[0]: tables.read(folder / name) for name in [*TABLES, JOBS, *analyses]}
    runs, summary, claims = read["runs"], read["summary"], read["claims"]
    finished, guess = runs[runs["status"] == "ok"], guesses(runs)
    prompting = [name for name in runs["method"].unique() if METHODS[name].prompts]
    shots, labels = list(runs["shots"].unique()), {name: METHODS[name].label for name in runs["method"].unique()}
    recipe = json.loads(finished.loc[finished["method"].isin(prompting), "recipe"].iloc[0])
    compressed = compressed_backbones(runs)
    rows, shared = against_paper(to_records(claims))
    tested = [row for row in rows if row["verdict"] != "not run"]
    catalogued = catalog.load("claims")
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    environment.filters |= {"number": number, "effect": effect, "listed": lambda values: listed(list(values), "and")}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        study=runs["study"].iloc[0],
        count={"asked": len(runs), "done": len(finished), "ledger": finished["run"].nunique()},
        seeds=runs["seed"].nunique(),
        shots=shots,
        methods=list(labels.values()),
        datasets=[catalog.datasets()[name].label or name for name in runs["dataset"].unique()],
        n_test=int(finished["n_test"].max()),
        recipe=recipe,
        hardware=to_records(finished[["device", "precision", "torch"]].drop_duplicates()),
        jobs=to_records(read["jobs"]),
        hours=read["jobs"]["seconds"].sum() / HOUR,
        hour=HOUR,
        confidence=f"{100 * CONFIDENCE:.0f} %",
        chance=100 / finished["classes"].max(),
        verdicts={verdict: int((claims["verdict"] == verdict).sum()) for verdict in VERDICTS},
        dense=sorted(f"`{name}`" for name in runs["dense"].dropna().unique()),
        networks=(shown := networks(runs, read["upstream"])),
        lost=extent(row["lost"] for row in shown if row["name"] in compressed),
        upstream=photos if (photos := reached(read["upstream"], compressed)["shown"].max()) > 0 else None,
        costs=costs(summary, shots, guess),
        accuracy=accuracy(summary, shots),
        pooled=pooled(runs, shots),
        probe=beyond_probe(runs, prompting, shots) if "lp" in labels else [],
        calibration=calibration(runs),
        matched=matched(read["matched"], runs, guess),
        labels=labels,
        mapping=mapping(read["mappings"], read["remapped"], runs),
        split=split(read["split"], shots[-1], guess) if "split" in read else [],
        why=to_records(read["why"].query("over == 'all' and cells > 0")) if "why" in read else [],
        shift=shift(read["shift_cost"], shots[-1], runs) if "shift_cost" in read else {},
        latency=to_records(read["latency"]) if "latency" in read else [],
        own=[row for row in tested if row["claim"] not in catalogued],
        paper=[row for row in tested if "2308.14969" in row["source"]],
        others=[row for row in tested if row["claim"] in catalogued and "2308.14969" not in row["source"]],
        not_run=len(rows) - len(tested),
        shared=shared,
        figures=sorted(path.name for path in folder.glob("*.png")),
    )


def number(value: float | None, form: str = "+.1f") -> str:
    """Write a number for people; "–" stands for none."""
    if value is None or pd.isna(value):
        return "–"
    text = format(value, form)
    return text.replace("-", "−") if text.strip("+-0.") else text.lstrip("+-")  # zero has no sign


def effect(row: dict) -> str:
    """Write an effect with its interval, bold where that is above or below zero as a whole, but where the verdict is
    that all of it is chance."""
    if row["effect"] is None or pd.isna(row["effect"]):
        return "–"
    if row["low"] is None or pd.isna(row["low"]):
        return number(row["effect"])
    text = f"{number(row['effect'])} ({number(row['low'])} to {number(row['high'])})"
    if row.get("verdict") == "at chance":
        return f"{text}, at chance"
    return f"**{text}**" if row["low"] > 0 or row["high"] < 0 else text


def extent(values: Iterable[float | None]) -> tuple[float, float] | None:
    """Return the smallest and the largest of the values that are known, None where none is."""
    known = [value for value in values if value is not None and not pd.isna(value)]
    return (min(known), max(known)) if known else None


def guesses(runs: pd.DataFrame) -> Guesses:
    """Return the (backbone, method, shots) of a study that are not surely better than guessing."""
    finished = runs[runs["status"] == "ok"]
    finished = finished.assign(number=numbers(finished))
    ran_once = finished.drop_duplicates("number")
    above = ran_once.loc[surely_above(ran_once), "number"]
    guessing = finished[~finished["number"].isin(above)]
    return set(guessing[["backbone", "method", "shots"]].itertuples(index=False, name=None))


def verdict(guess: Guesses, backbones: Iterable[str], method: str, shots: Iterable[str]) -> dict:
    """Return the `verdict` of a comparison of networks, for `effect`: at chance where all of them guess."""
    at_chance = all((backbone, method, budget) in guess for backbone, budget in product(backbones, shots))
    return {"verdict": "at chance"} if at_chance else {}


def networks(runs: pd.DataFrame, upstream: pd.DataFrame) -> list[dict]:
    """Return a row a backbone: its name, compression or control, measured `sparsity` (%), upstream accuracy (%) with
    its interval, what it `lost` of the dense one's, and why it has no runs, if so."""
    known = reached(upstream, compressed_backbones(runs))
    rows = []
    for one in to_records(runs.drop_duplicates("backbone")):
        reasons = runs.loc[(runs["backbone"] == one["backbone"]) & (runs["status"] == "not run"), "reason"]
        dense = known["top1"].get(one["dense"]) if one["dense"] else None
        top1, low, high, _ = known.loc[one["backbone"]]
        rows.append(
            {
                "name": one["backbone"],
                "what": one["control"] or one["compression"],
                "sparsity": 100 * one["sparsity_measured"] if one["sparsity_measured"] is not None else None,
                **{"top1": top1, "low": low, "high": high},
                "lost": None if dense is None or one["dense"] == one["backbone"] else dense - top1,
                "why": reasons.iloc[0] if len(reasons) else None,
            }
        )
    return rows


def costs(summary: pd.DataFrame, shots: list[str], guess: Guesses) -> dict[str, list[dict]]:
    """Return by method a row a compressed network or control: what it costs in accuracy, a value a number of shots,
    in points, with the 95 % interval over seeds and whether that is at chance."""
    compared = summary[(summary["backbone"] != summary["dense"]) & summary["dense"].notna()]
    columns = {f"accuracy_dense_minus_backbone_{part}": name for part, name in PARTS.items()}
    found: dict[str, list[dict]] = {}
    for (method, backbone, dense), rows in compared.groupby(["method", "backbone", "dense"], sort=False):
        values = 100 * rows.set_index("shots")[list(columns)].rename(columns=columns).reindex(shots)
        cells = zip(shots, values.to_dict("records"), strict=True)
        judged = [cell | verdict(guess, (backbone, dense), method, [budget]) for budget, cell in cells]
        found.setdefault(method, []).append({"name": backbone, "cells": judged})
    return found


def accuracy(summary: pd.DataFrame, shots: list[str]) -> list[dict]:
    """Return the mean accuracies over seeds (%) and their standard deviations of the dense networks and controls, a
    row a network and method."""
    shown = summary[(summary["compression"] == "none")]
    rows = []
    for (backbone, method), cells in shown.groupby(["backbone", "method"], sort=False):
        of_shots = 100 * cells.set_index("shots")[["accuracy_mean", "accuracy_std"]].reindex(shots)
        rows.append({"name": backbone, "method": method, "cells": of_shots.to_numpy().tolist()})
    return rows


def judged(runs: pd.DataFrame, claims: dict[str, dict], shots: list[str]) -> dict[str, list[dict]]:
    """Return the effect and interval of comparisons, put to the test as claims are: of each, by its name, at each
    number of shots and, last, at all."""
    asked = {}
    for name, claim in claims.items():
        for budget in [*shots, None]:
            stated_budget = int(budget) if budget and budget.isdigit() else budget
            cells = claim["cells"] | ({"shots": stated_budget} if budget else {})
            stated = {"text": "", "source": "", "measure": "accuracy_lost", "more_than": 0, **claim, "cells": cells}
            asked[f"{name} {budget}"] = Claim.model_validate(stated)
    rows = to_records(judge(runs, asked))
    width = len(shots) + 1
    return {name: rows[place * width : (place + 1) * width] for place, name in enumerate(claims)}


def pooled(runs: pd.DataFrame, shots: list[str]) -> list[dict]:
    """Return what compression costs in accuracy, mean over networks: a row a kind of these and a method, a cell a
    number of shots and, last, all."""
    rows = [{"kind": kind, "method": method} for kind in KINDS for method in runs["method"].unique()]
    claims = {
        f"{row['kind']} {row['method']}": {"cells": {"backbones": row["kind"], "methods": row["method"]}}
        for row in rows
    }
    return [row | {"cells": cells} for row, cells in zip(rows, judged(runs, claims, shots).values(), strict=True)]


def beyond_probe(runs: pd.DataFrame, prompting: list[str], shots: list[str]) -> list[dict]:
    """Return by how much more compression costs under each way of prompting than under the linear probe: a row a
    method, a cell a number of shots and, last, all."""
    sides = {
        method: {"cells": {"backbones": "compressed"}, "left": {"methods": method}, "right": {"methods": "lp"}}
        for method in prompting
    }
    return [{"method": method, "cells": cells} for method, cells in judged(runs, sides, shots).items()]


def calibration(runs: pd.DataFrame) -> list[dict]:
    """Return what compression adds to the expected calibration error under each method: mean over networks, shots."""
    added = {
        method: {"measure": "ece_added", "cells": {"backbones": "compressed", "methods": method}}
        for method in runs["method"].unique()
    }
    return [{"method": method} | cells[-1] for method, cells in judged(runs, added, []).items()]


def mapping(mappings: pd.DataFrame, remapped: pd.DataFrame, runs: pd.DataFrame) -> list[dict]:
    """Return how label mappings are like the dense network's, and how they move, means over shots and seeds in %.

    A row a network and a method that looks at what a network predicts: `same`, the share of the target classes that
    have the dense network's source class, at the same shots and seed; None of a dense one. `moved`, the share that is
    mapped otherwise than in the epoch before, in the second half of training; None of a mapping that stays.
    """
    of_backbone = runs.drop_duplicates("backbone").set_index("backbone")["dense"]
    looking = [name for name, method in METHODS.items() if method.maps_by_predictions]
    shown = mappings[mappings["method"].isin(looking)].assign(dense=mappings["backbone"].map(of_backbone))
    keys = [*AXES[1:], "target"]
    of_dense = shown[["backbone", *keys, "source"]].rename(columns={"backbone": "dense", "source": "of_dense"})
    both = shown.merge(of_dense, on=["dense", *keys], how="left")
    alike = (both["source"] == both["of_dense"]).where(both["backbone"] != both["dense"])
    late = remapped[remapped["epoch"] > remapped["epoch"].max() / 2]
    row = ["method", "backbone"]
    table = pd.DataFrame({"same": alike.astype(float).groupby([both[name] for name in row], sort=False).mean()})
    table["moved"] = late.groupby(row)["share"].mean()
    return [
        {"method": method, "name": name, "same": 100 * same, "moved": 100 * moved}
        for (method, name), (same, moved) in zip(table.index, table.to_numpy(), strict=True)
    ]


def matched(table: pd.DataFrame, runs: pd.DataFrame, guess: Guesses) -> list[dict]:
    """Return the rows of all kinds together, each with its `effect`, the cost, and whether that is at chance."""
    shots, of_dense = runs["shots"].unique(), runs.groupby("dense")["backbone"].unique()
    return [
        row | {"effect": row["cost_at_matched"]} | verdict(guess, of_dense[row["dense"]], row["method"], shots)
        for row in to_records(table[table["compression"] == EVERY_KIND])
    ]


def split(parts: pd.DataFrame, budget: str, guess: Guesses) -> list[dict]:
    """Return whose the cost is at a number of shots, points with their intervals over seeds: a row a compressed
    network and method, with `cost` and its parts `network`, `prompt` and `mapping`, or that all is at chance."""
    columns = {"cost": "cost"} | {name: f"part_{name}" for name in ("network", "prompt", "mapping")}
    return [
        {"name": one["backbone"], "method": one["method"]}
        | {
            name: {"effect": one[column], "low": one[f"{column}_low"], "high": one[f"{column}_high"]}
            | verdict(guess, (one["backbone"], one["dense"]), one["method"], [budget])
            for name, column in columns.items()
        }
        for one in to_records(parts[parts["shots"] == budget])
    ]


def shift(table: pd.DataFrame, budget: str, runs: pd.DataFrame) -> dict:
    """Return what compression costs in accuracy at a number of shots as images are corrupted: the `severities`, and
    `rows`, one a compressed network and method with a cell a severity, in points with the interval over seeds, and
    whether it is at chance."""
    shown = table[(table["shots"] == budget) & (table["paired_seeds"] > 0)]
    severities = sorted(shown["severity"].unique().tolist())
    columns = {f"accuracy_cost{end}": name for end, name in (("", "effect"), ("_low", "low"), ("_high", "high"))}
    guess = {severity: guesses(as_runs(table[table["severity"] == severity], runs)) for severity in severities}
    rows = []
    for (backbone, dense, method), cells in shown.groupby(["backbone", "dense", "method"], sort=False):
        values = cells.set_index("severity")[list(columns)].rename(columns=columns).reindex(severities)
        judged = [
            cell | verdict(guess[severity], (backbone, dense), method, [budget])
            for severity, cell in zip(severities, values.to_dict("records"), strict=True)
        ]
        rows.append({"name": backbone, "method": method, "cells": judged})
    return {"severities": severities, "rows": rows}


def as_runs(cells: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs as they were on corrupted images of a severity, each with the mean accuracy of its cell, over seeds
    and corruptions: on clean images as they are."""
    if (cells["severity"] == 0).all():
        return runs
    accuracy = (cells["worst_class_accuracy"] + cells["class_gap"]).rename("mean_class_accuracy")
    cell = ["backbone", "dataset", "method", "shots"]
    return runs.drop(columns="mean_class_accuracy").merge(cells[cell].join(accuracy), on=cell)


def main(folder: Path, results: Path | None = None) -> None:
    """Write the page of a folder, of a study's results where they are given."""
    if results:
        take(results, folder)
    with atomic(folder / "README.md") as temporary:
        temporary.write_text(render(folder), encoding="utf-8")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))

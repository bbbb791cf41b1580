"""The report: one HTML file that holds all it shows, and asks nothing of a network."""

import base64
import hashlib
import json
import math
import os
from collections import Counter
from collections.abc import Iterable
from functools import partial
from io import BytesIO
from pathlib import Path

import altair
import numpy as np
import pandas as pd
import vl_convert
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from matplotlib import colormaps
from matplotlib.colors import to_hex
from PIL import Image

from hiddencost import gallery, protocol, tables
from hiddencost.figures import style
from hiddencost.files import atomic, canonical
from hiddencost.report import charts, provenance
from hiddencost.verdicts import VERDICTS

# what the charts show: column, label, factor and unit; `cost`: the sign that makes a cost of dense minus backbone
MEASURES = [
    {"key": "accuracy", "label": "Test accuracy", "factor": 100, "unit": "%", "cost": 1},
    {"key": "ece", "label": "Calibration error (ECE)", "factor": 100, "unit": "points", "cost": -1},
    {"key": "mean_class_accuracy", "label": "Mean accuracy of the classes", "factor": 100, "unit": "%", "cost": None},
    {"key": "nll", "label": "Negative log-likelihood", "factor": 1, "unit": "nats", "cost": None},
    {"key": "brier", "label": "Brier score", "factor": 1, "unit": "", "cost": None},
    {"key": "ece_published", "label": "ECE as published (of logits)", "factor": 1, "unit": "", "cost": None},
]
JOBS = {method: job for job, methods in protocol.JOBS.items() for method in methods}  # which log a run is in
TABLES = ["runs", "bins", "summary", "expectations", "claims", "upstream", "matched"]
LONG = 1_000_000  # bytes of an image that is not kept exactly
SHOWN_AT_FIRST = 8  # backbones; a study with more opens with its first family alone


def write(output: Path, paths: dict[str, str], settings: dict, root: Path) -> None:
    """Write the report of a study to `output`, beside which its tables/ and figures/ are.

    paths: of the tables of `TABLES` and, to be linked, of those `typeset`. settings: the `study`, as JSON that
    keeps its order; `captions`, pairs of a figure's name and what it shows; `classes`, the number of each dataset's
    (None if unknown), and `sizes`, those at which it is prepared; `results`, the folder whose backbones/, benchmarks/
    and logs/ are read as far as they are there. root: of the checkout.
    """
    study, results = json.loads(settings["study"]), Path(settings["results"])
    runs, bins, summary, expectations, claims, upstream, matched = (tables.read(paths[name]) for name in TABLES)
    gates, state = provenance.gates(study, results), provenance.checkout(root)
    axes = _axes(runs, study["figures"], settings["classes"])
    formats = [*study["figures"]["formats"], "png"]
    drawn = {f"{name}.{form}" for name, _ in settings["captions"] for form in formats}
    pages = root / "workflow/report"
    scripts = [_enclosed(_bundle()), (pages / "report.js").read_text()]
    content = {
        "study": study,
        "runs": {"all": len(runs), "done": len(style.finished(runs))},
        "axes": axes,
        "labels": style.labels(study["figures"]),
        "verdicts": {one: int((claims["verdict"] == one).sum()) for one in VERDICTS},
        "headline": headline(summary),
        "costs": costs(summary, axes, upstream),
        "matched": _records(matched),
        "best": best(summary),
        "devices": devices(runs),
        "jobs": provenance.jobs(results),
        "warnings": warnings(runs, gates, state, results, output.parent) + unlisted(output.parent / "figures", drawn),
        "claims": _records(claims),
        "expectations": _records(expectations),
        "gates": gates,
        "figures": [
            {"name": name, "title": _title(name), "caption": caption} | _embedded(output.parent, name, formats[0])
            for name, caption in settings["captions"]
        ],
        "typeset": sorted(Path(path).name for path in paths.get("typeset", [])),
        "inputs": [
            *provenance.inputs(study, settings["sizes"], results, Path("resources")),
            *provenance.tables(paths[n] for n in TABLES),
        ],
        "versions": provenance.versions(),
        "trained_with": _records(_counted(style.finished(runs), ["python", "torch", "torchvision", "timm"])),
        "checkout": state,
        "config": yaml.safe_dump(study, sort_keys=False, allow_unicode=True, width=100),
        "css": Markup((pages / "report.css").read_text()),
        "data": Markup(_json_in_html(_data(axes, summary, bins, study["figures"]))),
        "scripts": [Markup(script) for script in scripts],
        "hashes": [_csp_hash(script) for script in scripts],
    }
    with atomic(output) as temporary:
        temporary.write_text(_page(pages).render(content), encoding="utf-8")


def _page(folder: Path) -> Template:
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": _number, "duration": _duration}
    return environment.get_template("report.html.j2")


def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    return vl_convert.javascript_bundle(vl_version=altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0])


def headline(summary: pd.DataFrame) -> list[dict]:
    """Return what compression costs in accuracy (points) under prompting and under each other method.

    It is the mean of the seed-paired differences over the `cells` of compressed backbones; in so many of these the
    95 % interval lies `over` zero.
    """
    name = "accuracy_dense_minus_backbone"
    cells = summary[(summary["compression"] != "none") & summary["control"].isna() & (summary["paired_seeds"] > 0)]
    groups = (
        cells["method"]
        .map({method: style.LABELS[method] for method in ("lp", "ft", "zs")})
        .fillna("visual prompting")
    )
    return [
        {
            "method": method,
            "cost": 100 * own[f"{name}_mean"].mean(),
            "cells": len(own),
            "over": int((own[f"{name}_low"] > 0).sum()),
        }
        for method, own in cells.groupby(groups, sort=False)
    ]


def costs(summary: pd.DataFrame, axes: dict, upstream: pd.DataFrame) -> list[dict]:
    """Return the backbones that are compared with another one, each with what it is `of` for each method: its mean
    `cost` in accuracy over datasets and budgets (points), and the number of `cells`; and its `top1` upstream and that
    of the `other`, in %, None where it is not known."""
    paired = summary[(summary["paired_seeds"] > 0) & (summary["backbone"] != summary["dense"])]
    groups = paired.groupby(["backbone", "method"])["accuracy_dense_minus_backbone_mean"].agg(["mean", "count"])
    found = {key: {"cost": 100 * mean, "cells": count} for key, mean, count in groups.itertuples()}
    none = {"cost": None, "cells": 0}
    top1 = upstream.set_index("backbone")["top1"].dropna().to_dict()
    other = paired.drop_duplicates("backbone").set_index("backbone")["dense"]
    return [
        one
        | {"of": [found.get((one["name"], method["name"]), none) for method in axes["method"]]}
        | {"top1": top1.get(one["name"]), "other": top1.get(other[one["name"]])}
        for one in axes["backbone"]
        if one["name"] in set(paired["backbone"])
    ]


def best(summary: pd.DataFrame) -> list[dict]:
    """Return the cell of highest mean accuracy on each data set, controls included."""
    done = summary.dropna(subset="accuracy_mean")
    return _records(done.loc[done.groupby("dataset", sort=False)["accuracy_mean"].idxmax()])


def devices(runs: pd.DataFrame) -> list[dict]:
    """Return on what the finished runs were trained: `device`, `precision`, how many `runs`, and their `seconds`."""
    return _records(_counted(style.finished(runs), ["device", "precision"]))


def warnings(runs: pd.DataFrame, gates: list[dict], state: dict, results: Path, beside: Path) -> list[dict]:
    """Return what a reader must know before trusting the numbers: `what`, `why`, and the `logs` that tell more, as
    paths from the folder `beside`."""
    found = []

    def warn(what: str, why: str, logs: Iterable[str] = ()) -> None:
        there = [os.path.relpath(results / "logs" / log, beside) for log in logs if (results / "logs" / log).exists()]
        found.append({"what": what, "why": why, "logs": there})

    for gate in gates:
        if gate["verified"] is False:
            name = gate["backbone"]
            warn(f"{name} failed its verification", "; ".join(gate["reasons"]), [f"verify_backbone/{name}.log"])
    failed = runs[runs["status"] != "ok"]
    for (status, reason), group in failed.groupby(["status", "reason"], sort=False, dropna=False):
        names, datasets = (_enumerated(style.order(group, axis)) for axis in ("backbone", "dataset"))
        packs = group.assign(job=group["method"].map(JOBS))[["job", "backbone", "dataset", "seed"]].drop_duplicates()
        logs = [f"{job}/{backbone}/{dataset}/seed{seed}.log" for job, backbone, dataset, seed in packs.to_numpy()]
        why = reason if isinstance(reason, str) else "no reason was told"
        warn(f"{len(group)} of {len(runs)} runs {status}: {names}; on {datasets}", why, logs)
    alone = style.order(runs[runs["dense"].isna()], "backbone")
    if alone:
        warn(f"nothing to compare {_enumerated(alone)} with", "the study has no dense network of theirs")
    seeds = runs["seed"].nunique()
    if seeds == 1:
        warn("one seed", "no interval can be told from one")
    elif seeds == 2:
        warn("two seeds", "their intervals are wide, and their standard deviations rough")
    finished = style.finished(runs)
    ways = finished.groupby(finished["method"].map(JOBS))[["device", "precision"]].nunique(dropna=False)
    if (ways > 1).any(axis=None):
        warn("runs of a method come from several kinds of hardware or precision", "each rounds in its own way")
    if state["changed"]:
        changed = f"{len(state['changed'])} files differ from commit {state['commit'][:12]}"
        warn("the checkout was not clean when this report was written", changed)
    return found


def unlisted(folder: Path, drawn: set[str]) -> list[dict]:
    """Return a warning, as of `warnings`, where a folder of figures holds others than the files that were `drawn`.

    They are left where they are, as they may be somebody's own.
    """
    others = sorted(path.name for path in folder.glob("[!.]*") if path.name not in drawn)
    why = f"of an earlier state of the study, or not of it: {_enumerated(others)}"
    return [{"what": "figures/ holds other files, too", "why": why, "logs": []}] if others else []


def _enumerated(names: list[str]) -> str:
    shown = 3
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")


def _counted(runs: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    groups = runs.groupby(columns, sort=False, dropna=False)["train_seconds"]
    return groups.agg(runs="size", seconds="sum").reset_index()


def _axes(runs: pd.DataFrame, settings: dict, classes: dict) -> dict:
    """Return what the page filters by, in the study's order. settings: the study's `figures`."""
    told = runs.drop_duplicates("backbone").set_index("backbone")
    told = told[["checkpoint", "compression", "control", "sparsity_declared", "dense"]].astype(object)
    stated = told.where(told.notna(), None).to_dict("index")
    drawn = gallery.described(stated, None, settings["labels"])
    backbones, taken = [], Counter()
    for name, one in drawn.items():
        family, kind = stated[name]["dense"] or name, one["role"]
        shapes = charts.SHAPES[kind]
        shape = shapes[taken[family, kind] % len(shapes)]
        taken[family, kind] += 1
        backbones.append({"name": name, "label": one["label"], "kind": kind, "shape": shape, "family": family})
    first = [one["name"] for one in backbones if one["family"] == backbones[0]["family"]]
    shown = first[:SHOWN_AT_FIRST] if len(backbones) > SHOWN_AT_FIRST else list(drawn)
    colours, named = style.colours(settings), partial(style.named, settings=settings)
    return {
        "backbone": [one | {"shown": one["name"] in shown} for one in backbones],
        "dataset": [
            {"name": name, "label": named(name), "shown": True, "chance": classes[name] and 100 / classes[name]}
            for name in style.order(runs, "dataset")
        ],
        "method": [
            {"name": name, "label": named(name), "shown": True, "colour": colours[name]}
            for name in style.order(runs, "method")
        ],
        "shots": style.order(runs, "shots"),
    }


def _data(axes: dict, summary: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> dict:
    """Return what the page draws: cells and bins, not the runs, of which there are more. settings: as in `_axes`."""
    metrics = [f"{one['key']}_{statistic}" for one in MEASURES for statistic in ("mean", "std")]
    pairs = [f"{one}_dense_minus_backbone_{what}" for one in ("accuracy", "ece") for what in ("mean", "low", "high")]
    cells = summary[["backbone", "dataset", "method", "shots", "seeds", "paired_seeds", *metrics, *pairs]].copy()
    cells["reach"] = style.reach(cells["seeds"])
    cells.loc[summary["backbone"] == summary["dense"], pairs] = None  # none costs something against itself
    palette = [to_hex(colour) for colour in colormaps[settings["palette"]](np.linspace(0, 1, 11))]
    colours = {one["name"]: one["colour"] for one in axes["method"]}
    pooled = tables.pool(bins[bins["shots"] == axes["shots"][-1]], ["backbone", "dataset", "method"]).drop(
        columns="count"
    )
    return {
        "axes": axes,
        "measures": MEASURES,
        "palette": palette,
        "cells": _columns(cells, axes),
        "bins": _columns(pooled, axes),
        "panels": charts.panels(list(colours), axes["shots"], colours, palette),
    }


def _columns(table: pd.DataFrame, axes: dict) -> dict[str, list]:
    """Return a table's columns: names as their numbers in `axes`, numbers to five digits, None for none."""
    columns = {}
    for name, column in table.items():
        if name in axes:
            names = [one["name"] if isinstance(one, dict) else one for one in axes[name]]
            columns[name] = column.map({one: number for number, one in enumerate(names)}).tolist()
        else:
            columns[name] = [None if pd.isna(value) else float(f"{value:.5g}") for value in column]
    return columns


def _records(table: pd.DataFrame) -> list[dict]:
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _title(figure: str) -> str:
    return figure.replace("-", " ").replace("_", " ").capitalize()


def _number(value: float | str | None, form: str = ".1f") -> str:
    """Format a number for a table; "–" stands for none, and a text stays."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    return value if isinstance(value, str) else format(value, form).replace("-", "−")


def _duration(seconds: float) -> str:
    """Write seconds for people: "42 s", "7.5 min", "31.0 h"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def _embedded(folder: Path, figure: str, form: str) -> dict:
    """Return a figure's image as the page holds it, its size in pixels, and the file of a format to open instead."""
    with Image.open(folder / f"figures/{figure}.png") as image:
        width, height = image.size
        picture = image.convert("RGB")
    # the same pixels as the PNG in half its length (quality is the effort here), if it is not all photographs
    webp = _webp(picture, lossless=True, quality=20)
    if len(webp) > LONG:
        webp = _webp(picture, quality=90)
    source = "data:image/webp;base64," + base64.b64encode(webp).decode()
    return {"image": source, "width": width, "height": height, "file": f"figures/{figure}.{form}"}


def _webp(picture: Image.Image, **how: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "webp", **how)
    return buffer.getvalue()


def _enclosed(script: str) -> str:
    # a module's own names stay its own
    return f"(() => {{{script}}})();"


def _csp_hash(script: str) -> str:
    """Return how a page's policy names the one script that it lets run."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def _json_in_html(value: object) -> str:
    """JSON that cannot end the element it stands in."""
    return canonical(value).replace("<", "\\u003c")

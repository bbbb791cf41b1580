"""The report: one HTML file that holds all it shows, and asks nothing of a network."""

import base64
import hashlib
import json
import math
from collections import Counter
from datetime import datetime
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

from hiddencost.figures import style
from hiddencost.files import atomic, canonical
from hiddencost.methods.registry import METHODS
from hiddencost.report import charts, provenance
from hiddencost.report.summary import (
    LONG,
    against_paper,
    best,
    caveats,
    costs,
    count_runs,
    devices,
    headline,
    measures,
    to_records,
    unlisted,
    warnings,
)
from hiddencost.results import gallery, tables
from hiddencost.results.cells import distinct, shots_labels
from hiddencost.results.intervals import band_reach
from hiddencost.results.matched import compressed_backbones
from hiddencost.results.upstream import reached
from hiddencost.results.verdicts import VERDICTS
from hiddencost.runs.metrics import METRICS

TABLES = ["runs", "bins", "summary", "means", "expectations", "claims", "upstream", "matched"]
SHOWN_AT_FIRST = 8  # backbones; a study with more opens with its first family alone


def write(output: Path, paths: dict[str, str], settings: dict, root: Path) -> None:
    """Write the report of a study.

    Args:
        output: of the page, beside which the study's tables/ and figures/ are.
        paths: of the tables of `TABLES` and, to be linked, of those `typeset` and `analysed`.
        settings: the `study`, as JSON that keeps its order; `captions`, the name, the title and the caption of each
            figure; `labels`, what to write instead of names; `prepared`, the folders of all images; `results`, that
            with backbones/, benchmarks/ and logs/.
        root: of the checkout.
    """
    study, results = json.loads(settings["study"]), Path(settings["results"])
    runs, bins, summary, means, expectations, claims, upstream, matched = [tables.read(paths[one]) for one in TABLES]
    gates, state = provenance.gates(study, results), provenance.checkout(root)
    recipes = provenance.recipes(runs, study)
    judged, shared = against_paper(to_records(claims))
    warned = caveats(runs, shared) + warnings(runs, recipes, gates, state, results, output.parent)
    looks = study["figures"] | {"labels": settings["labels"]}
    axes, formats = _axes(runs, summary, looks), [*looks["formats"], "png"]
    drawn = {f"{name}.{form}" for name, *_ in settings["captions"] for form in formats}
    pages = root / "workflow/report"
    scripts = [_enclosed(_bundle()), (pages / "report.js").read_text()]
    content = {
        "study": study,
        "written": f"{datetime.now().astimezone():%d %B %Y, %H:%M %Z}".lstrip("0"),
        "runs": {"all": len(runs), "done": len(style.finished(runs))},
        "axes": axes,
        "labels": style.labels(looks),
        "verdicts": {verdict: int((claims["verdict"] == verdict).sum()) for verdict in VERDICTS},
        "words": list(VERDICTS.items()),
        "headline": headline(summary, runs),
        "costs": costs(means, axes, reached(upstream, compressed_backbones(runs))),
        "matched": to_records(matched),
        "best": best(summary),
        **{"devices": devices(runs), "jobs": provenance.jobs(results)},
        "warnings": warned + unlisted(output.parent / "figures", drawn),
        **{"recipes": recipes, "trainings": provenance.trainings(study, results)},
        **{"claims": judged, "shared": shared},
        **{"expectations": to_records(expectations), "gates": gates},
        "images_read": provenance.images_read(settings["prepared"]),
        "figures": [
            {"name": name, "title": title, "caption": caption} | _embedded(output.parent, name, formats[0])
            for name, title, caption in settings["captions"]
        ],
        **{kind: sorted(Path(path).name for path in paths.get(kind, [])) for kind in ("typeset", "analysed")},
        "inputs": [
            *provenance.inputs(study, settings["prepared"], results, Path("resources")),
            *provenance.tables(paths[name] for name in TABLES),
        ],
        "versions": provenance.versions(),
        "trained_with": to_records(count_runs(style.finished(runs), ["python", "torch", "torchvision", "timm"])),
        "checkout": state,
        "config": yaml.safe_dump(study, sort_keys=False, allow_unicode=True, width=100),
        "css": Markup((pages / "report.css").read_text()),
        "data": Markup(_json_in_html(_data(axes, summary, bins, looks))),
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
    version = altair.SCHEMA_VERSION.removeprefix("v").rpartition(".")[0]
    return vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # its types want a snippet


def _axes(runs: pd.DataFrame, summary: pd.DataFrame, settings: dict) -> dict:
    """Return what the page filters by, in the study's order. settings: the study's `figures`.

    A dataset has `budgets`: what each number of shots is called, None of one that chooses the images of another.
    """
    columns = runs.drop_duplicates("backbone").set_index("backbone")
    columns = columns[["checkpoint", "compression", "control", "sparsity_declared", "dense"]].astype(object)
    stated = columns.where(columns.notna(), None).to_dict("index")
    drawn = gallery.describe_backbones(stated, None, settings["labels"])
    backbones, taken = [], Counter[tuple[str, str]]()
    for name, shown in drawn.items():
        family, kind = stated[name]["dense"] or name, shown.role
        shapes = charts.SHAPES[kind]
        shape = shapes[taken[family, kind] % len(shapes)]
        taken[family, kind] += 1
        backbones.append({"name": name, "label": shown.label, "kind": kind, "shape": shape, "family": family})
    for family in {backbone["family"] for backbone in backbones}:  # in its colours of the printed figures
        alike = [backbone for backbone in backbones if backbone["family"] == family]
        looks = style.looks(drawn, [backbone["name"] for backbone in alike], settings)
        for backbone in alike:
            backbone["colour"] = to_hex(looks[backbone["name"]]["color"])
    first = [backbone["name"] for backbone in backbones if backbone["family"] == backbones[0]["family"]]
    visible = first[:SHOWN_AT_FIRST] if len(backbones) > SHOWN_AT_FIRST else list(drawn)
    colours, named = style.colours(settings), partial(style.named, settings=settings)
    budgets = {name: shots_labels(part) for name, part in summary.groupby("dataset", sort=False)}
    shots, classes = style.order(runs, "shots"), runs.groupby("dataset")["classes"].max()
    chance = (100 / classes).astype(object).where(classes.notna(), None)
    return {
        "backbone": [backbone | {"shown": backbone["name"] in visible} for backbone in backbones],
        "dataset": [
            {"name": name, "label": named(name), "shown": True, "chance": chance[name]}
            | {"budgets": [budgets[name].get(number) for number in shots]}
            for name in style.order(runs, "dataset")
        ],
        "method": [
            {"name": name, "label": named(name), "shown": True, "colour": colours[name]}
            | {"trains": METHODS[name].trains}
            for name in style.order(runs, "method")
        ],
        "shots": shots,
    }


def _data(axes: dict, summary: pd.DataFrame, bins: pd.DataFrame, settings: dict) -> dict:
    """Return what the page draws: cells, each training once, and bins, not the runs, of which there are more.

    settings: as in `_axes`.
    """
    metrics = [f"{metric}_{statistic}" for metric in METRICS for statistic in ("mean", "std")]
    paired = [f"{metric}_dense_minus_backbone" for metric in tables.paired_metrics()]
    pairs = [f"{difference}_{statistic}" for difference in paired for statistic in ("mean", "low", "high")]
    of_cell = ["backbone", "dataset", "method", "shots", "seeds", "paired_seeds", "classes_short"]
    summary = distinct(summary)
    cells = summary[[*of_cell, *metrics, *pairs]].copy()
    cells["reach"] = band_reach(cells["seeds"])
    cells.loc[summary["backbone"] == summary["dense"], pairs] = None  # none costs something against itself
    palette = [to_hex(colour) for colour in colormaps[settings["palette"]](np.linspace(0, 1, 11))]
    colours = {method["name"]: method["colour"] for method in axes["method"]}
    pooled = tables.pool(bins[bins["shots"] == axes["shots"][-1]], ["backbone", "dataset", "method"]).drop(
        columns="count"
    )
    shown = pooled[pooled["share"] >= charts.FEW]
    gaps = 100 * (shown["accuracy"] - shown["confidence"])
    return {
        "axes": axes,
        "measures": measures(),
        "palette": palette,
        "cells": _columns(cells, axes),
        "bins": _columns(pooled, axes),
        "panels": charts.panels(list(colours), colours, palette, (gaps.min(), gaps.max())),
    }


def _columns(table: pd.DataFrame, axes: dict) -> dict[str, list]:
    """Return a table's columns: names as their numbers in `axes`, numbers to five digits, None for none."""
    columns = {}
    for name, column in table.items():
        if name in axes:
            values = [value["name"] if isinstance(value, dict) else value for value in axes[name]]
            columns[name] = column.map({value: number for number, value in enumerate(values)}).tolist()
        else:
            columns[name] = [None if pd.isna(value) else float(f"{value:.5g}") for value in column]
    return columns


def _number(value: float | str | None, form: str = ".1f") -> str:
    """Format a number for a table; "–" stands for none, and a text stays."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, str):
        return value
    text = format(value, form)
    return text.replace("-", "−") if text.strip("+-0.") else text.lstrip("+-")  # zero has no sign


def _duration(seconds: float) -> str:
    """Write seconds for people: "42 s", "7.5 min", "31.0 h"."""
    for size, unit in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.3g} s"


def _embedded(folder: Path, figure: str, form: str) -> dict:
    """Return a figure's image as the page holds it, its size in pixels, and the file of a format to open instead."""
    with Image.open(folder / f"figures/{figure}.png", formats=["PNG"]) as image:
        width, height = image.size
        picture = image.convert("RGB")
    # the same pixels as the PNG in half its length (quality is the effort here), if it is not all photographs
    webp = _webp(picture, lossless=True, quality=20)
    if len(webp) > LONG:
        webp = _webp(picture, quality=90)
    source = "data:image/webp;base64," + base64.b64encode(webp).decode()
    return {"image": source, "width": width, "height": height, "file": f"figures/{figure}.{form}"}


def _webp(picture: Image.Image, **options: object) -> bytes:
    buffer = BytesIO()
    picture.save(buffer, "webp", **options)
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

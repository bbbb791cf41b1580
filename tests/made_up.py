"""A study with made-up numbers, at the size of studies/paper.yaml: to design figures and reports on."""

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from conftest import ROOT

from hiddencost.compression.registry import applied
from hiddencost.figures.registry import figures_of_study
from hiddencost.files import canonical
from hiddencost.jobs.results import shown_metric
from hiddencost.methods.registry import METHODS
from hiddencost.results import gallery, matched, tables
from hiddencost.results.gallery import StudyFigure
from hiddencost.results.upstream import with_shares
from hiddencost.runs.metrics import METRICS
from hiddencost.study.load import load_study
from hiddencost.study.recipes import recipe_of_run
from hiddencost.study.study import Study

TITLE = "made-up numbers"
CANVAS = 224
IMAGES = {"flowers102": 10, "dtd": 40}  # the most of a class
DIFFICULTY = {"cifar10": 0.5, "svhn": 0.3, "gtsrb": 0.2, "dtd": 0.0, "flowers102": 0.1, "oxfordpets": 0.6}
EASE = {"rlm": -1.6, "flm": -0.5, "ilm": -0.2, "lp": 1.0, "ft": 1.6, "zs": 0.4}  # of a method, in logits
# of another, in logits and of its sparsity
COSTS = {"acdc": 0.35, "rigl": 0.5, "gmp": 0.9, "lth": 1.6, "magnitude": 0.8, "quantised": 0.2}


def paper() -> Study:
    """Return the paper's study of convolutional networks, and with it some that are quantised."""
    config = yaml.safe_load((ROOT / "studies/paper.yaml").read_text())
    config["paths"] = {}  # all are published ones
    for bits in (8, 4):
        compression = {"algorithm": "quantise", "bits": bits}
        config["backbones"].append(
            {"name": f"resnet18-int{bits}", "checkpoint": "resnet18-v1", "compression": compression}
        )
    return load_study(config, "paper.yaml")


def stated(study: Study) -> dict[str, dict]:
    """Return what is known of each of a study's backbones."""
    return {one.name: study.declared(one) for one in study.backbones}


def measured(name: str, declared: float | None) -> float | None:
    """Return a made-up measured sparsity: of a lottery ticket, of which none is published, 20 % a round."""
    state = re.search(r"lth(\d+)", name)
    return 1 - 0.8 ** int(state[1]) if state else declared


def runs(study: Study, missing: tuple[str, ...] = ("resnet50-lth10", "caltech101")) -> pd.DataFrame:
    """Return made-up runs of a study; those of a backbone on a dataset (`missing`) were not run."""
    told, random = stated(study), np.random.default_rng(0)
    for name, one in told.items():  # as rows have it: what a file holds stands for what nobody published
        one["sparsity_declared"] = measured(name, one["sparsity_declared"])
    axes = {
        "backbone": list(told),
        "dataset": [one.name for one in study.datasets],
        "method": study.methods,
        "shots": list(map(str, study.shots)),
        "seed": study.seeds,
    }
    table = pd.MultiIndex.from_product(axes.values(), names=list(axes)).to_frame(index=False)
    served = {name: study.methods_of(study.backbone(name)) for name in told}
    table = table[[method in served[name] for name, method in zip(table["backbone"], table["method"], strict=True)]]
    table = table.reset_index(drop=True)
    classes = table["dataset"].map(lambda name: len(study.dataset_entry(name).classes))
    step = table["shots"].map({shots: place for place, shots in enumerate(axes["shots"])}) / (len(axes["shots"]) - 1)
    network = random.normal(0, 0.1, len(table))
    network += table["seed"].map(dict(zip(study.seeds, random.normal(0, 0.1, len(study.seeds)), strict=True)))
    spread = {name: random.uniform(-0.2, 2.2) for name in axes["dataset"]}
    logit = -1.0 + table["dataset"].map(DIFFICULTY).fillna(0.2) + table["method"].map(EASE) + 2.2 * step
    logit += 1.5 * table["backbone"].str.startswith("clip")
    shown_none = ~table["method"].map(lambda name: METHODS[name].trains)  # whatever the budget and the seed
    logit[shown_none], network[shown_none], step[shown_none] = logit[shown_none] - 2.2 * step[shown_none], 0, 0.5
    for name, one in told.items():
        kinds, sparsity = [entry.kind for entry in applied(one["compression"])], one["sparsity_declared"]
        kind = kinds[-1] if kinds else "none"
        level = 1 if kind == "quantised" else 0.9 if sparsity is None else sparsity**3
        cost = COSTS.get(kind, 0) * level * table["dataset"].map(spread)
        prompted = (table["method"] != "lp") * 0.75 + 0.25
        logit -= (table["backbone"] == name) * cost * prompted * (0.4 + 0.6 * step)
        logit -= (table["backbone"] == name) * (1 if one["control"] else 0) * 3
    accuracy = 1 / classes + (0.98 - 1 / classes) / (1 + np.exp(-(logit + network)))
    ran = ~((table["backbone"] == missing[0]) & (table["dataset"] == missing[1]))
    table["status"], table["reason"] = np.where(ran, "ok", "not run"), np.where(ran, None, "made up")
    table["accuracy"] = accuracy.where(ran)
    table["ece"] = (0.05 + 0.25 * (1 - step) * (1 - accuracy) + random.normal(0, 0.01, len(table))).abs().where(ran)
    for metric in METRICS.keys() - {"accuracy", "ece"}:
        table[metric] = table["accuracy"]
    for column in ("checkpoint", "compression", "control", "sparsity_declared", "dense", "recipe_dense"):
        table[column] = table["backbone"].map({name: one[column] for name, one in told.items()})
    table["sparsity_measured"] = table["sparsity_declared"]
    table["study"], table["classes"], table["n_test"], table["n_test_fewest"] = study.study, classes, 1000, 10
    weights = ["checkpoint", "compression", "control"]
    table["run"] = table.groupby([*weights, *tables.AXES[1:]], dropna=False).ngroup().map("{:064x}".format)
    for dataset, most in IMAGES.items():  # budgets that have all images are one training
        own = table[(table["dataset"] == dataset) & table["method"].map(lambda name: METHODS[name].trains)]
        enough = [number for number in axes["shots"] if number == "full" or int(number) >= most]
        first = own[own["shots"] == enough[0]]
        for number in enough[1:]:
            values = ["accuracy", "ece", "run", *("mean_class_accuracy", "nll", "brier", "ece_published")]
            table.loc[own.index[own["shots"] == number], values] = first[values].to_numpy()
    table["recipe"] = recipes(study, table)
    table.loc[~ran, ["run", "recipe"]] = None
    return table.reindex(columns=tables.run_columns())


def recipes(study: Study, runs: pd.DataFrame) -> list[str]:
    """Return of each run the recipe that a pack would state, JSON."""

    @cache
    def stated(backbone: str, dataset: str, recipe: str, shots: str) -> str:
        return canonical(recipe_of_run(study.recipe(recipe, dataset, backbone), shots))

    first = {study.family(one).recipe: one.name for one in study.backbones}
    alike = {one.name: first[study.family(one).recipe] for one in study.backbones}
    of_runs = zip(runs["backbone"].map(alike), runs["dataset"], runs["method"], runs["shots"], strict=True)
    return [stated(backbone, dataset, METHODS[method].recipe, shots) for backbone, dataset, method, shots in of_runs]


def bins(runs: pd.DataFrame) -> pd.DataFrame:
    """Return made-up reliability bins of finished runs, their overconfidence growing with the error."""
    finished = runs[runs["status"] == "ok"]
    long = finished.loc[finished.index.repeat(15), tables.AXES].reset_index(drop=True)
    long["bin"] = np.tile(np.arange(1, 16), len(finished))
    middle = (long["bin"] - 0.5) / 15
    accuracy = np.repeat(finished["accuracy"].to_numpy(), 15)
    long["count"] = np.rint(1000 * np.exp(-(((middle - accuracy) / 0.3) ** 2))).astype(int)
    long["confidence"] = middle
    long["accuracy"] = (middle * (0.6 + 0.4 * accuracy)).clip(0, 1)
    return long


def learned(study: Study, runs: pd.DataFrame, sources: list[str]) -> dict[str, pd.DataFrame]:
    """Return made-up mappings (`mappings`) of ilm's finished runs, of all images, and how they moved (`remapped`)."""
    random = np.random.default_rng(1)
    own = runs[(runs["status"] == "ok") & (runs["method"] == "ilm") & (runs["shots"] == runs["shots"].iloc[-1])]
    classes = {one.name: study.dataset_entry(one.name).classes for one in study.datasets}
    mappings, remapped = [], []
    for run in own[tables.AXES].to_dict("records"):
        names = classes[run["dataset"]]
        seed = sum(map(ord, run["dataset"]))
        source = np.random.default_rng(seed).permutation(1000)[: len(names)]
        moved = random.random(len(names)) < (0.3 if "dense" in run["backbone"] else 0.7)
        source = np.where(moved, random.integers(0, 1000, len(names)), source)
        told = {"source_name": np.array(sources)[source], "target_name": names}
        mappings.append(pd.DataFrame(run | {"target": range(len(names)), "source": source} | told))
        epochs = np.arange(2, study.protocol.epochs + 1)
        slow = 10 + 25 * ("dense" not in run["backbone"])
        share = (0.6 * np.exp(-epochs / slow) + 0.03 * random.random(len(epochs))).round(2)
        remapped.append(pd.DataFrame(run | {"epoch": epochs, "share": share}))
    return {"mappings": pd.concat(mappings), "remapped": pd.concat(remapped)}


def images(study: Study, figures: dict, runs: pd.DataFrame) -> tuple[dict, dict]:
    """Return made-up prompts, of all images, and example images, as `learned.read_learned` does."""
    random = np.random.default_rng(2)
    prompted = runs["method"].map(lambda name: METHODS[name].prompts)
    finished = runs[(runs["status"] == "ok") & prompted & (runs["shots"] == runs["shots"].iloc[-1])]
    examples, prompts = {}, {}
    for one in study.datasets:
        size = one.image_size
        waves = np.sin(np.arange(size) / size * random.uniform(4, 20, (12, 3, 1)))
        examples[one.name] = np.rint(127 + 120 * waves[..., None] * waves[..., None, :]).astype(np.uint8)
    for figure in figures.values():
        if figure.kind == "prompts":
            for key in gallery.runs_shown(finished, figure.backbones):
                example = examples[key[1]][0]
                before = (CANVAS - example.shape[-1] + 1) // 2
                canvas = random.integers(48, 208, (3, CANVAS, CANVAS), np.uint8)
                inside = slice(before, before + example.shape[-1])
                canvas[:, inside, inside] = example
                prompts["/".join(map(str, key))] = canvas
    prompts["gain"] = np.array(3)
    return prompts, examples


def upstream(study: Study) -> pd.DataFrame:
    """Return what backbones reach upstream: as published, and made-up photos."""
    rows = []
    for one in study.backbones:
        top1 = None if one.control or one.compression else study.checkpoint_entry(one.checkpoint).upstream_top1
        lost = re.search(r"lth(\d+)", one.name)
        rows.append([one.name, top1, 0 if one.control else 19 - int(lost[1]) // 4 if lost else 19])
    return with_shares(pd.DataFrame(rows, columns=["backbone", "top1", "photos"]).assign(photos_shown=20))


def write(folder: Path, sources: list[str]) -> tuple[dict[str, StudyFigure], Callable[[str], Path], dict]:
    """Make up the paper's study; return its figures, what writes a table by its name and returns the file, and the
    settings. A table is made when it is first asked for: some take seconds."""
    study = paper()
    datasets = [one.name for one in study.datasets]
    checkpoints = {one.checkpoint: study.checkpoint_entry(one.checkpoint).label for one in study.backbones}
    known = {name: label for name, label in checkpoints.items() if label}
    figures = figures_of_study(stated(study), datasets, study.methods, {}, known)
    made, reached = runs(study), upstream(study)
    of_mappings = cache(lambda: learned(study, made, sources))
    of_images = cache(lambda: dict(zip(("prompts", "examples"), images(study, figures, made), strict=True)))
    making = {
        **{"runs": lambda: made, "bins": lambda: bins(made), "summary": lambda: tables.summarise(made)},
        **{"upstream": lambda: reached, "matched": lambda: matched.matched(made, reached)},
        **{"mappings": lambda: of_mappings()["mappings"], "remapped": lambda: of_mappings()["remapped"]},
        **{"prompts": lambda: of_images()["prompts"], "examples": lambda: of_images()["examples"]},
    }
    formats = dict.fromkeys(("summary", "upstream", "matched"), "csv") | dict.fromkeys(("prompts", "examples"), "npz")

    @cache
    def file(name: str) -> Path:
        path, table = folder / f"{name}.{formats.get(name, 'parquet')}", making[name]()
        if isinstance(table, dict):
            np.savez(path, **table)
        else:
            tables.write(table, path)
        return path

    settings = study.figures.model_dump() | {"title": TITLE, "methods": study.methods}
    settings["metric"] = shown_metric(study.figures.metric)
    settings["labels"] = {name: study.dataset_entry(name).label for name in datasets}
    return figures, file, settings

"""Where a study's numbers come from: the hashes of what went in, versions, and the state of the checkout."""

import json
import os
import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path

import pandas as pd

from hiddencost.datasets.prepared import PreparedReport
from hiddencost.files import canonical, read_json, sha256_file
from hiddencost.methods.registry import METHODS
from hiddencost.networks.families import family_of_checkpoint
from hiddencost.results.upstream import share
from hiddencost.sources import FetchedReport

OF_DATA = {
    "batch_size",
    "test_batch_size",
    "canvas",
}  # settings of a recipe that a data set, or a network, may change


def inputs(study: dict, prepared: list[str], results: Path, resources: Path) -> list[dict]:
    """Return what went into a study.

    Downloads and the user's own files as their reports tell them (fetched.json), prepared arrays (dataset.json), and
    the weights of each backbone (manifest.json). What a partial study has not made yet has no row.

    Args:
        study: as its JSON has it.
        prepared: the folders of its images; another study may have others of the same dataset.
        results: the study's folder, with backbones/, and own/ of what is read of the user's own files.
        resources: the folder of checkpoints/, raw/ and photos/.

    Returns:
        A row a file that is there: kind, name, what, sha256, source.
    """
    rows = []

    def add(kind: str, name: str, what: str, sha256: str, source: str = "") -> None:
        rows.append({"kind": kind, "name": name, "what": what, "sha256": sha256, "source": source})

    trained = study.get("upstream", [])
    starts = [network["checkpoint"] for network in trained if network.get("checkpoint")]
    readers = [study["text_encoder"] for name in study["methods"] if METHODS[name].reads_names]
    checkpoints = dict.fromkeys([*(backbone["checkpoint"] for backbone in study["backbones"]), *starts, *readers])
    upstream = [network["dataset"] for network in trained if network.get("dataset")]
    datasets = dict.fromkeys([*(dataset["name"] for dataset in study["datasets"]), *upstream])
    origins = [
        ("checkpoint", "checkpoints", checkpoints),
        ("data set", "raw", datasets),
        ("photos", "photos", [study["verification"]["photos"]]),
    ]
    for kind, folder, names in origins:
        for name in names:
            report = resources / folder / name
            if name in study.get("paths", {}) or not report.exists():  # of the user's own, it is the study's
                report = results / "own" / folder / name
            files = FetchedReport.read(report).files if (report / "fetched.json").exists() else {}
            for one in files.values():
                add(kind, name, Path(one.path).name, one.sha256, one.source)
    for report in _reports(prepared):
        for file, sha256 in report.sha256.items():
            add("prepared images", report.dataset, f"{file} at {report.size} pixels", sha256)
    for backbone in study["backbones"]:
        manifest = _read(results / "backbones" / backbone["name"] / "manifest.json")
        if "weights_sha256" in manifest:  # not where its download failed
            add("backbone", backbone["name"], "weights", manifest["weights_sha256"])
    return rows


def images_read(prepared: list[str]) -> list[dict]:
    """Return what was read of each of a study's datasets.

    Args:
        prepared: the folders of its images.

    Returns:
        A row a dataset, of the first size that is there: name, the number of `classes`, `train` and `test` images,
        and `remarks`, what was left out, why, and what was done to images; or the one reason why it failed.
    """
    rows: dict[str, dict] = {}
    for report in _reports(prepared):
        if report.dataset not in rows:
            remarks = [report.failed] if report.failed else report.remarks
            rows[report.dataset] = {"name": report.dataset, "classes": len(report.classes)}
            rows[report.dataset] |= {**report.counts.model_dump(), "remarks": remarks}
    return list(rows.values())


def _reports(prepared: list[str]) -> list[PreparedReport]:
    """Return the reports of prepared datasets, of those that are there, by their folders."""
    return [PreparedReport.read(folder) for folder in prepared if Path(folder, "dataset.json").exists()]


def recipes(runs: pd.DataFrame, study: dict) -> list[dict]:
    """Return by what the finished runs were trained, as it is stored with them.

    Args:
        runs: the study's table.
        study: as its JSON has it.

    Returns:
        A row a recipe: its `settings` as a text, names of `methods`, the number of `runs`, and the names of the
        settings that are `other` in the study now, but for those that a data set or a network may change. A family
        of networks has a recipe of its own.
    """
    rows = []
    finished = runs[runs["recipe"].notna()]
    for text, group in finished.groupby("recipe", sort=False):
        recipe, methods = json.loads(text), list(dict.fromkeys(group["method"]))
        sections = {_section(*of_run) for of_run in zip(group["method"], group["checkpoint"], strict=True)}
        stated = [study[name] | study[name].get("prompt", {}) for name in sections if name and study.get(name)]
        other = {
            name
            for section in stated
            for name in recipe.keys() & section.keys() - OF_DATA
            if recipe[name] != section[name]
        }
        settings = ", ".join(f"{name} {canonical(value)}" for name, value in recipe.items())
        rows.append({"settings": settings, "methods": methods, "runs": len(group), "other": sorted(other)})
    return rows


def trainings(study: dict, results: Path) -> list[dict]:
    """Return how the backbones were trained that a study has trained, this one or another whose networks it takes, as
    their manifests tell.

    Args:
        study: as its JSON has it.
        results: the study's folder, with backbones/.

    Returns:
        A row a backbone that is there: its name and its `settings` as a text, without the names of the classes.
    """
    rows = []
    for backbone in study["backbones"]:
        manifest = _read(results / "backbones" / backbone["name"] / "manifest.json")
        if not (told := manifest.get("upstream")):
            continue
        data = {key: value for key, value in told["data"].items() if key != "classes"}
        of_training = told["recipe"] | (told["sparsify"] or {})
        others = {key: value for key, value in told.items() if key not in ("data", "recipe", "sparsify")}
        settings = ", ".join(f"{name} {canonical(value)}" for name, value in (data | of_training | others).items())
        rows.append({"backbone": backbone["name"], "settings": settings})
    return rows


def _section(method: str, checkpoint: str) -> str | None:
    """Return the key of a study that holds the recipe of a method on a checkpoint; None of an unknown method."""
    known = METHODS.get(method)
    if known is None:
        return None
    return family_of_checkpoint(checkpoint).recipe if known.prompts else known.recipe


def gates(study: dict, results: Path) -> list[dict]:
    """Return what the gate says of each backbone of a study.

    Args:
        study: as its JSON has it.
        results: the study's folder, with backbones/.

    Returns:
        A row a backbone: its name, `verified` (None where there is no verdict), what verification.json holds, and the
        `share` of the photos, with its interval, where they are enough (see `upstream.share`).
    """
    rows = []
    for backbone in study["backbones"]:
        verdict = _read(results / "backbones" / backbone["name"] / "verification.json")
        photos = verdict.get("photos") or {}
        counted = {"share": share(photos.get("top1"), photos.get("count"))}
        rows.append({"backbone": backbone["name"], "verified": verdict.get("passed"), **verdict, **counted})
    return rows


def jobs(results: Path) -> list[dict]:
    """Sum up the benchmarks of a study's jobs.

    Args:
        results: the study's folder, with benchmarks/.

    Returns:
        A row a rule, by time: its number of `jobs`, their time in all and of the longest (`seconds`, `longest`) and
        the most memory that one held (`memory`, MB; None where it was not seen).
    """
    files = sorted((results / "benchmarks").rglob("*.tsv"))
    if not files:
        return []
    rules = [file.relative_to(results / "benchmarks").with_suffix("").parts[0] for file in files]
    benchmarks = pd.concat([pd.read_csv(file, sep="\t") for file in files], keys=rules)
    benchmarks["max_rss"] = pd.to_numeric(benchmarks["max_rss"], errors="coerce")  # "NA" of a job of a moment
    summed = benchmarks.groupby(level=0).agg(
        jobs=("s", "size"), seconds=("s", "sum"), longest=("s", "max"), memory=("max_rss", "max")
    )
    summed = summed.sort_values("seconds", ascending=False).rename_axis("rule").reset_index().astype(object)
    return summed.where(summed.notna(), None).to_dict("records")


def versions() -> dict[str, str]:
    """Return the versions of Python and of every package that is installed here, by name."""
    packages = {package.name: package.version for package in distributions()}
    return {"Python": platform.python_version()} | {name: packages[name] for name in sorted(packages, key=str.lower)}


def checkout(root: Path) -> dict:
    """Return the git state of a folder.

    Args:
        root: of the checkout.

    Returns:
        `commit`, `changed` (the files that differ from it, None if unknown; new ones count where they could be code,
        not studies or images), and `why` there is no commit, where there is none.
    """
    # a repository around it is none of ours
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(root.resolve().parent)}

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), "--no-optional-locks", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        status = git("status", "--porcelain", "--untracked-files=all").splitlines()
        changed = [line for line in status if not line.startswith("??") or line[3:].startswith(("src/", "workflow/"))]
        return {"commit": commit, "changed": changed, "why": None}
    except FileNotFoundError:
        return {"commit": None, "changed": None, "why": "git is not installed where the report was written"}
    except subprocess.CalledProcessError as error:
        return {"commit": None, "changed": None, "why": (error.stderr.splitlines() or ["git failed"])[0]}


def tables(paths: Iterable[str | Path]) -> list[dict]:
    """Return a row, as of `inputs`, for each table that the report is made of."""
    return [
        {"kind": "table", "name": Path(path).name, "what": "of this study", "sha256": sha256_file(path), "source": ""}
        for path in paths
    ]


def _read(path: Path) -> dict:
    return read_json(path) if path.exists() else {}

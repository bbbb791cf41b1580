"""What the runs learned, out of the ledger: label mappings, how these moved, and the prompts that figures show."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torchvision
from safetensors import safe_open

from hiddencost.compression.verification import VerificationReport
from hiddencost.datasets.prepared import Dataset, PreparedReport, load
from hiddencost.files import atomic
from hiddencost.methods.method import Method
from hiddencost.methods.registry import METHODS, run_by
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting.prompts import shape_of
from hiddencost.results import gallery, tables
from hiddencost.results.upstream import with_shares
from hiddencost.runs import ledger
from hiddencost.runs.packfile import AXES

log = logging.getLogger(__name__)
EXAMPLES = 12  # target classes of a dataset with an image each, for the mapping's figure
MAPPINGS = [*AXES, "target", "source", "target_name", "source_name"]
REMAPPED = [*AXES, "epoch", "share"]


class Learned(NamedTuple):
    """What runs learned.

    Attributes:
        mappings: a row a run and target class, at the end of training.
        remapped: a row an epoch, from the second (`epoch` 2), of each run of a method whose mapping moves: the
            `share` of the target classes that were mapped otherwise than in the epoch before, of weights those whose
            largest is of another source class.
        prompts: uint8 [3, S, S] by "backbone/dataset/method/shots/seed": σ(W), or grey and what was added to a CLIP's
            image (as a share of a pixel's range), around an image (around grey where there is none), its contrast
            raised by the factor "gain", one for all, that makes the strongest fill the range.
        examples: uint8 [K, 3, s, s] by dataset: the first training image of each of its first classes.
    """

    mappings: pd.DataFrame
    remapped: pd.DataFrame
    prompts: dict[str, np.ndarray]
    examples: dict[str, np.ndarray]


def write(runs: str | Path, settings: dict, paths: dict[str, str]) -> None:
    """Write what `read_learned` and `upstream` return of a study.

    Args:
        runs: path of the study's table.
        settings: `ledger`, `prepared` and `groups` of `read_learned`, `backbones` of `upstream`.
        paths: of the files, by the fields of `Learned` and "upstream".
    """
    stated = ({name: gallery.ShownBackbone(**shown) for name, shown in group} for group in settings["groups"])
    table = pd.read_parquet(runs)
    groups = [gallery.with_measured_sparsity(group, table) for group in stated]
    sources = {name: partial(_sources, backbone) for name, backbone in settings["backbones"].items()}
    prompts = {name: backbone["prompt"] for name, backbone in settings["backbones"].items()}
    learned = read_learned(table, settings["ledger"], settings["prepared"], groups, sources, prompts)
    images: dict[str, dict[str, Any]] = {"prompts": learned.prompts, "examples": learned.examples}
    for name, arrays in images.items():
        with atomic(paths[name]) as temporary:
            np.savez(temporary, **arrays)
    for name, table in (("mappings", learned.mappings), ("remapped", learned.remapped)):
        tables.write(table, paths[name])
    tables.write(upstream(settings["backbones"]), paths["upstream"])


def _sources(backbone: dict, dataset: str) -> list[str] | None:
    """Return the names of a backbone's source classes on a dataset, None of ImageNet-1k's: those that the study has
    trained it on, or a CLIP's texts."""
    if not backbone["texts"]:
        manifest = _manifest(backbone)
        return manifest.classes if manifest else None
    with safe_open(backbone["texts"].format(dataset=dataset), "np") as stored:
        return json.loads(stored.metadata()["texts"])


def read_learned(
    runs: pd.DataFrame,
    folder: str | Path,
    prepared: dict[str, str],
    groups: Iterable[Mapping[str, gallery.ShownBackbone]],
    sources: Mapping[str, Callable[[str], list[str] | None]],
    shapes: dict[str, dict],
) -> Learned:
    """Read what the finished prompting runs of a study learned.

    Args:
        runs: the study's table.
        folder: its ledger.
        prepared: the folder of each dataset at its image size; where it is gone there are no examples, and target
            classes are called by their numbers.
        groups: the networks of each figure of prompts, as `gallery.runs_shown` takes them: they tell whose prompts
            are kept.
        sources: by backbone, of a dataset's name the names of its source classes, None where they are those of
            ImageNet-1k.
        shapes: of the prompts on a backbone, by its name: `shape` of `PROMPTS`, its settings beyond canvas and image,
            and the `scaling` of the network's input, its mean and standard deviation.
    """
    runs = runs[(runs["status"] == "ok") & runs["method"].isin(run_by("train"))]
    images, classes = {}, {}
    for name, path in prepared.items():
        if Path(path, "dataset.json").exists() and not PreparedReport.read(path).failed:
            dataset = load(path)
            images[name], classes[name] = _examples(dataset), dataset.classes
    shown, mappings, remapped = [], [], []
    for run in runs.itertuples():
        axes = {axis: getattr(run, axis) for axis in AXES}
        found = _mapping_of(folder, run.run, METHODS[run.method])
        shown.append(found is not None)
        if found:
            mapping, share = found
            mappings.append(axes | {"target": np.arange(len(mapping)), "source": mapping})
            if METHODS[run.method].moves_mapping:
                remapped.append(axes | {"epoch": np.arange(2, len(share) + 2), "share": share})
    runs, mappings = runs[np.array(shown, bool)], _long(mappings, MAPPINGS[:-2])
    imagenet = torchvision.models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    cells = list(zip(mappings["backbone"], mappings["dataset"], strict=True))
    names = {cell: sources[cell[0]](cell[1]) or imagenet for cell in dict.fromkeys(cells)}
    mappings["source_name"] = [
        names[cell][source] for cell, source in zip(cells, mappings["source"].astype(int), strict=True)
    ]
    mappings["target_name"] = [
        classes[dataset][target] if dataset in classes else str(target)
        for dataset, target in zip(mappings["dataset"], mappings["target"], strict=True)
    ]
    prompts = _prompts(runs, folder, images, groups, shapes)
    return Learned(mappings[MAPPINGS], _long(remapped, REMAPPED), prompts, images)


def _mapping_of(folder: str | Path, run: str, method: Method) -> tuple[np.ndarray, np.ndarray] | None:
    """Return the source class of each target class of a run, of weights that of the largest, and, where its mapping
    moves, the share of them that changed at each epoch; None, with a warning, where its entry is gone, damaged or has
    no mapping.

    An entry is read whole, for its checksum, and nothing of it is held: a study has gigabytes of them.
    """
    try:
        learned, _ = ledger.read(folder, run)
        sources = method.sources_of(learned["mapping"])
        drawn = learned["mappings"] if method.moves_mapping else sources[None]
        return sources.numpy().copy(), (drawn[1:] != drawn[:-1]).double().mean(1).numpy()
    except KeyError as error:
        log.warning("what a run has learned is not shown: %s has no %s", ledger.entry(folder, run), error.args[0])
    except (FileNotFoundError, ValueError) as error:
        log.warning("what a run has learned is not shown: %s", error)
    return None


def upstream(backbones: dict[str, dict]) -> pd.DataFrame:
    """Return what backbones are known to reach upstream.

    Args:
        backbones: by name, `top1` (%, as published, or None), the path of its `manifest`, where the study has trained
            it, which tells the top-1 that holds where it is `as_trained`, and that of its `verification`; these may
            not exist.

    Returns:
        A row a backbone: its name, `top1`, `photos` (of the verification, or the upstream test images there,
        classified rightly), `photos_shown` (how many there were), and their share, see `upstream.with_shares`.
    """
    rows = []
    for name, stated in backbones.items():
        manifest, verification = _manifest(stated), Path(stated["verification"])
        trained = manifest.upstream_top1 if manifest and stated["as_trained"] else None
        photos = VerificationReport.read(verification).photos if verification.exists() else None
        counts = (photos.top1, photos.count) if photos else (None, None)
        rows.append([name, stated["top1"] or trained, *counts])
    return with_shares(pd.DataFrame(rows, columns=["backbone", "top1", "photos", "photos_shown"]))


def _manifest(backbone: dict) -> Manifest | None:
    path = backbone["manifest"] and Path(backbone["manifest"])
    return Manifest.read(path.parent) if path and path.exists() else None


def _prompts(
    runs: pd.DataFrame,
    folder: str | Path,
    images: dict,
    groups: Iterable[Mapping[str, gallery.ShownBackbone]],
    shapes: dict[str, dict],
) -> dict[str, np.ndarray]:
    run_of = runs.set_index(AXES)["run"].to_dict()
    borders, drawn = {}, {}  # as they differ from the grey that they start from, or from nothing
    for key in dict.fromkeys(key for shown in groups for key in gallery.runs_shown(runs, shown)):
        stated, example = shapes[key[0]], images[key[1]][0] if key[1] in images else None
        with safe_open(ledger.entry(folder, run_of[key]), "pt") as stored:
            canvas = stored.get_slice("prompt").get_shape()[-1]
            shown = {"canvas": canvas, "image_size": canvas if example is None else example.shape[-1]}
            prompt = shape_of(stated["shape"]).of(stated | shown)
            learned = {name: stored.get_tensor(name) for name in prompt.new()}
        borders[key] = prompt.in_pixels(learned, stated["scaling"], example)
        if example is not None:
            drawn[key] = prompt.shown_mask(learned).numpy(), prompt.placed(example, learned)
    strongest = max((np.quantile(np.abs(border), 0.99) for border in borders.values()), default=0.5)
    gain = max(1, int(0.5 / max(strongest, 0.005)))
    prompts = {"gain": np.array(gain)} if borders else {}
    for key, border in borders.items():
        canvas = np.rint(255 * (0.5 + gain * border).clip(0, 1)).astype(np.uint8)
        if key in drawn:
            canvas = np.where(drawn[key][0], canvas, drawn[key][1])
        prompts["/".join(map(str, key))] = canvas
    return prompts


def _examples(dataset: Dataset) -> np.ndarray:
    labels = np.asarray(dataset.train_labels)
    first = [np.flatnonzero(labels == label)[0] for label in range(min(EXAMPLES, len(dataset.classes)))]
    return np.stack([dataset.train_images[index] for index in first])


def _long(rows: list[dict], columns: list[str]) -> pd.DataFrame:
    """Return one table of rows whose last two values are arrays of one length."""
    lengths = [len(row[columns[-1]]) for row in rows]
    table: dict[str, Any] = {
        axis: np.repeat([row[axis] for row in rows], lengths) for axis in AXES if axis in columns
    }
    table |= {name: np.concatenate([row[name] for row in rows]) if rows else [] for name in columns[-2:]}
    return pd.DataFrame(table, columns=columns)

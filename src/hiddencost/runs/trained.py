"""What a run has learned, loaded: from a study, a file, or the Hugging Face Hub."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from hiddencost import catalog
from hiddencost.datasets.prepare import sized
from hiddencost.datasets.prepared import PreparedReport
from hiddencost.datasets.splits import take_shots
from hiddencost.files import read_json, sha256_file
from hiddencost.messages import describe_unknown_name
from hiddencost.methods.registry import JOBS, METHODS
from hiddencost.networks import backbones, inputs, layers
from hiddencost.networks.families import family_of
from hiddencost.networks.manifest import Manifest
from hiddencost.prompting.prompts import shape_of
from hiddencost.runs import card, hub, ledger, pack, packfile, saved
from hiddencost.runs.classifier import TrainedClassifier
from hiddencost.runs.packfile import AXES
from hiddencost.sources import LOCK, first_uses
from hiddencost.study.protocols import shape_of_run


def load(
    path: str | Path,
    *,
    backbone: str | None = None,
    dataset: str | None = None,
    method: str | None = None,
    shots: int | str | None = None,
    seed: int | None = None,
) -> TrainedClassifier:
    """Load what a run has learned (all methods but ft) as a torch module: images in, logits out.

    Args:
        path: a study's folder (results/NAME, with the project's resources/ beside results/), the file of a run in its
            ledger, a file that `TrainedClassifier.save` wrote, or what `push` put on the Hugging Face Hub,
            hf://USER/REPO[@REVISION][/FILE].
        backbone, dataset, method, shots, seed: of a study's folder, which run, in the words of the study; what is the
            same for all its runs may be left out.

    Returns:
        The module, on the CPU, in evaluation mode and in float32, as in the study; on a GPU, cuDNN takes TF32 for it
        unless `torch.backends.cudnn.allow_tf32 = False`.

    Raises:
        ValueError: in one line, if no run or more than one fits, if the run has no result, if a file is damaged or
            not what it should be, or if the run was trained with another backbone, data set, split or recipe than are
            there now.
        FileNotFoundError: if a file is missing, here or on the Hub.
        OSError: in a line, if the Hub cannot be reached.
    """
    axes = {"backbone": backbone, "dataset": dataset, "method": method, "shots": shots, "seed": seed}
    selection = {axis: str(value) for axis, value in axes.items() if value is not None}
    if str(path).startswith(hub.PROTOCOL):
        _refuse_beside_a_file(selection, path)
        return _from_file(hub.download(str(path)))
    path = Path(path)
    if path.is_dir():
        return _from_study(path, _find_run(path, selection))
    if not path.is_file():
        what = "neither a folder nor a file" if path.exists() else "there is none"
        raise FileNotFoundError(f"{path}: {what}; expected a study's folder (results/NAME) or a run's file")
    _refuse_beside_a_file(selection, path)
    in_ledger = path.absolute().parents[1]
    if in_ledger.name == "ledger":
        return _from_study(in_ledger.parent, _find_run(in_ledger.parent, {}, path.stem))
    return _from_file(path)


def push(model: TrainedClassifier, address: str) -> str:
    """Put what `TrainedClassifier.save` writes into a repository of the Hugging Face Hub, with a model card made from
    the run.

    Args:
        model: as `load` returns it.
        address: hf://USER/REPO. A repository that is not there is made, and anybody may see it; make it before for
            another visibility. Who asks and where the Hub is, `huggingface_hub` knows: HF_TOKEN or `hf auth login`,
            HF_ENDPOINT.

    Returns:
        The address for `load`, hf://USER/REPO@COMMIT, which stays what it is.

    Raises:
        ValueError: for another address.
        OSError: in a line, if the Hub cannot be reached (ConnectionError), or refuses (PermissionError).
    """
    return hub.upload(address, model.save, card.card(model.about, address))


def _refuse_beside_a_file(selection: dict[str, str], path: str | Path) -> None:
    if selection:
        raise ValueError(f"{path}: a file holds one run; expected no {', '.join(selection)} beside it")


def _find_run(study: Path, selection: dict[str, str], identity: str | None = None) -> dict:
    """Return the row of the one run that fits in a study's table, where it has to have a result."""
    table = _existing(study / "tables/runs.parquet")
    runs = pd.read_parquet(table)
    if identity:
        runs = runs[runs["run"] == identity].head(1)  # budgets that choose the same images are one run
        if runs.empty:
            raise ValueError(f"{table}: the run {identity} is not, or no longer, one of the study")
    texts = runs[AXES].astype(str)
    for axis, value in selection.items():
        if value not in set(texts[axis]):
            raise ValueError(f"{table}: {axis} {describe_unknown_name(value, texts[axis].unique())}")
        runs, texts = runs[texts[axis] == value], texts[texts[axis] == value]
    if len(runs) > 1:
        open_axes = {axis: texts[axis].unique() for axis in AXES if texts[axis].nunique() > 1}
        more = "; ".join(f"{axis}: {', '.join(values)}" for axis, values in open_axes.items())
        raise ValueError(f"{table}: {len(runs)} runs fit; expected one, by {more}")
    (row,) = runs.to_dict("records")
    name = f"{table}: the run {', '.join(str(row[axis]) for axis in AXES)}"
    if row["status"] != "ok":
        raise ValueError(f"{name} has no result: {row['status']}: {row['reason']}")
    if METHODS[row["method"]].changes_weights:
        *others, last = [method.name for method in METHODS.values() if not method.changes_weights]
        raise ValueError(f"{name} kept no weights; expected a run of {', '.join(others)} or {last}")
    return row


def _from_study(study: Path, row: dict) -> TrainedClassifier:
    method, target, place = METHODS[row["method"]], row["dataset"], f"{row['dataset']}/seed{row['seed']}"
    table = f"{JOBS[method.job].folder}/{row['backbone']}/{place}.parquet"
    request = packfile.stored_request(_existing(study / table))
    if request is None:
        raise ValueError(f"{study / table}: not a table of this version; run the study again, then load")
    size = request.size
    home = study / "own" if request.images == "" else study.absolute().parents[1] / "resources"
    dataset = PreparedReport.read(_existing(home / f"datasets/{request.images or target}/{size}/dataset.json").parent)
    split = read_json(_existing(study / f"splits/{place}.json"))
    entry = ledger.entry(study / "ledger", row["run"])
    learned, result = _read_entry(study / "ledger", row["run"], f"results/{study.absolute().name}/{table}")
    network, _, manifest = backbones.load(_existing(study / "backbones" / row["backbone"] / "manifest.json").parent)
    images = take_shots(split["permutations"], row["shots"]) if method.trains else []
    further = {
        key: result.training[key]
        for key in ("features" if method.probes else "precision", "texts", "names")
        if key in result.training
    }
    about: dict[str, Any] = {}
    texts = _existing(study / "texts" / row["backbone"] / f"{target}.safetensors") if "texts" in further else None
    if texts:
        further["texts"] = sha256_file(texts)
    family = family_of(manifest.architecture)
    network = family.classifier(network, manifest.architecture, None if method.probes else texts)
    about |= family.saved_settings(network, manifest)
    shown = {"canvas": request.canvas, "image_size": sized(size)[0]}
    now = pack.identity(manifest, dataset.digest, images, method.name, row["shots"], request, **further)
    if now != row["run"]:
        raise ValueError(
            f"{entry}: was trained with another backbone, data set, split or recipe than {study} has now; "
            "run the study again, then load"
        )
    preprocessing = manifest.preprocessing.model_dump(exclude_unset=True)
    about |= {
        "architecture": manifest.architecture,
        "preprocessing": manifest.preprocessing.model_dump(include={"mean", "std"}),
        "classes": dataset.classes,
        "size": size,
        "prompt": (shape := shape_of_run(request.recipe, family.prompt)),
        **asdict(shape_of(shape).of({**preprocessing, **request.recipe, **shown})),
        "run": {key: row[key] for key in ("study", *AXES, "accuracy", "run")},
        "origin": {
            **{key: getattr(manifest, key) for key in ("checkpoint", "compression", "control")},
            "sparsity": row["sparsity_measured"],
            **_whose(manifest, study.absolute().parents[1]),
        },
    }
    learned.pop("mappings", None)  # of each epoch; the last is `mapping`
    saved.check_values(learned, layers.head_of(network).out_features, str(entry))
    model = TrainedClassifier(network, about)
    if method.probes:
        backbones.load_strictly(layers.head_of(model.network), learned, str(entry))
    else:
        backbones.load_strictly(model, model.state_dict() | learned, str(entry))
    return model


def _whose(manifest: Manifest, project: Path) -> dict:
    """Return of whose weights a network is, see `saved.SavedOrigin`."""
    published = catalog.published(manifest.checkpoint, manifest.source_sha256, first_uses(project / LOCK))
    return {"published": published, "trained": manifest.upstream is not None}


def _read_entry(folder: Path, run: str, table: str) -> tuple[dict[str, Tensor], ledger.Result]:
    """Return a run's entry in the ledger; an error tells how to have it made again."""
    # Snakemake does not look into the ledger by itself
    remedy = f"to train it again: snakemake --force {table}"
    try:
        return ledger.read(folder, run)
    except FileNotFoundError:
        if ledger.older_entries(folder, run):
            older = f"{folder}: the run {run} was trained by an older version of the code"
            raise ValueError(f"{older}; run the study again, then load") from None
        raise FileNotFoundError(f"{ledger.entry(folder, run)}: there is none; {remedy}") from None
    except ValueError as error:
        raise ValueError(f"{error}; {remedy}") from None


def _from_file(path: Path) -> TrainedClassifier:
    about, tensors = saved.read(path)
    try:  # without memory, as the file may name a network of any size
        claimed = _as_saved(about, torch.device("meta"))
        side = claimed.size[0]
        claimed(torch.empty(1, 3, side, side, dtype=torch.uint8, device="meta"))
        sources = layers.head_of(claimed.network).out_features
    except Exception as error:  # of a library, whose networks raise anything
        inputs.refuse_of_the_machine(error)
        raise ValueError(f"{path}: no such classifier can be built: {error}") from None
    saved.check_shapes(tensors, backbones.weights_of(claimed.state_dict()), str(path))
    saved.check_values(tensors, sources, str(path))
    model = _as_saved(about, torch.device("cpu"))
    backbones.load_strictly(model, tensors, str(path))
    return model


def _as_saved(about: dict, device: torch.device) -> TrainedClassifier:
    with device:
        network = family_of(about["architecture"]).saved_classifier(about)
        return TrainedClassifier(network, about).to(device)


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is none; run the study, then load")
    return path

"""A whole study in this process, in seconds: a tiny network on noise of three classes, from packs to tables and
figures, without Snakemake and without a download.

For tests of what a study can be extended by: register something, name it in the study, call `run`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import numpy as np
import pandas as pd
import torch
from safetensors.torch import save_file
from torch import nn

from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.datasets import prepared
from hiddencost.datasets.own import user_entry
from hiddencost.datasets.prepare import prepare
from hiddencost.datasets.splits import draw_splits
from hiddencost.figures import draw
from hiddencost.files import write_json
from hiddencost.jobs import analyses, checkpoints, datasets, grid, layout, places, results, training, values
from hiddencost.jobs.call import Call
from hiddencost.networks import backbones
from hiddencost.networks.architectures import ARCHITECTURES
from hiddencost.networks.manifest import Manifest
from hiddencost.results import learned, matched, tables
from hiddencost.results.analyses import ANALYSES
from hiddencost.results.gallery import StudyFigure
from hiddencost.runs.features import extract_features
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.runs.pairs import PairInputs
from hiddencost.runs.probe import probe_pack
from hiddencost.runs.prompting import train_pack
from hiddencost.study.load import load_study
from hiddencost.study.study import Study

CPU = torch.device("cpu")
RECIPE = {
    **{"epochs": 3, "learning_rate": 0.05, "milestones": [], "gamma": 0.1},
    **{"batch_size": 8, "shuffle": True, "test_batch_size": 16},
}
STUDY = {
    "study": "tiny",
    "seeds": [0, 1],
    "shots": [1, "full"],
    "methods": ["rlm", "flm", "ilm", "lp"],
    # the catalog's name, for a study to know it; its weights are those of `tiny_network`
    "backbones": [
        {"name": "dense", "checkpoint": "mobilenetv2"},
        {
            "name": "pruned",
            "checkpoint": "mobilenetv2",
            "compression": {"algorithm": "magnitude", "sparsity": 0.5},
        },
    ],
    "datasets": [{"name": "toy", "npz": "toy.npz", "image_size": 12}],
    "protocol": RECIPE | {"canvas": 16, "mapping_interval": 1, "precision": "fp32"},
    "probe": RECIPE,
    "verification": {"sparsity_tolerance": 0.01, "photos_top1": 0},
}


@dataclass
class Finished:
    """A study that has run: `tables` by name, as figures read them, and the PNG files of drawn `figures` by name."""

    study: Study
    tables: dict[str, Path]
    figures: dict[str, Path]

    @property
    def runs(self) -> pd.DataFrame:
        """The table of its runs."""
        return tables.read(self.tables["runs"])


def tiny_network() -> nn.Module:
    """Return a network for images of any size, over 30 classes, the same at each call."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        deeper = nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        return nn.Sequential(*layers, *deeper, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 30))


def import_tiny_network(folder: Path) -> None:
    """Write the tiny network as import_checkpoint would."""
    manifest = Manifest(
        **{"checkpoint": "mobilenetv2", "architecture": "tiny", "stem": "0", "upstream_top1": 70.0},
        **{"compression": "none", "sparsity_declared": 0.0, "sparsity_over": "convolutions"},
        preprocessing={"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"},
    )
    backbones.save(folder, tiny_network().state_dict(), {}, manifest)


def run(config: dict, folder: Path, monkeypatch, figures: Iterable[str] = ()) -> Finished:
    """Run a study, STUDY with changes, in a folder, of which it makes the current one: packs, tables and `figures`.

    With the settings that the workflow's rules have, and in its files, but for checkpoints and downloads: each
    backbone is made of `tiny_network`, and no photos are shown to it; each dataset is noise. The job `finetune` is
    not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny_network)
    call = Call(load_study(config, "the study"))
    import_tiny_network(Path(layout.IMPORTED.format(home=layout.SHARED, checkpoint="mobilenetv2")))
    for dataset in call.study.datasets:
        make_dataset(call, dataset.name)
    for backbone in call.study.backbones:
        make_backbone(call, backbone.name)
        for dataset in call.study.datasets:
            make_names(call, backbone.name, dataset.name)
    packs = [train(call, job, **pack) for job in ("train", "probe") for pack in grid.packs(call, job)]
    written = write_tables(call, packs)
    return Finished(call.study, written, draw_figures(call, figures))


def make_backbone(call: Call, name: str) -> None:
    """Make a backbone and put it to the gate."""
    settings, folder = checkpoints.compress(call, name), call.path(layout.BACKBONE, backbone=name)
    images = [Path(file).parent for file in checkpoints.calibration_images(call, name)[:1]]
    compress(Path(checkpoints.source_network(call, name)[0]).parent, folder, *settings.values(), *images)
    known = Recognised(20, 20, "photos", 0)
    verification = verify(folder, checkpoints.verify_backbone(call), lambda network, manifest: known)
    assert verification.passed, verification.reasons
    verification.write(call.path(layout.VERIFICATION, backbone=name))


def make_dataset(call: Call, name: str) -> None:
    """Prepare noise, whose classes differ in brightness, at the study's sizes of it, and draw its splits."""
    random, labels = np.random.default_rng(0), np.arange(24) % 3
    images = random.integers(0, 96, (24, 3, 12, 12)) + 64 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    np.savez(f"{name}.npz", x_train=images, y_train=labels, x_test=images[::-1], y_test=labels[::-1])
    for size in datasets.sizes_of(call, name):
        folder = places.prepared_folder(call, name, size)
        prepare(name, user_entry(name, npz=f"{name}.npz"), None, size, folder)
    dataset = prepared.load(datasets.first_prepared(call, name))
    for seed in call.study.seeds:
        split = draw_splits(name, dataset.train_labels, len(dataset.classes), seed)
        write_json(call.path(layout.SPLIT, dataset=name, seed=seed), {"permutations": split})


def make_names(call: Call, backbone: str, dataset: str) -> None:
    """Write how alike the names of a dataset's classes are to those of the tiny network's, at random, where a method
    maps by these and there is no such file."""
    for file in map(Path, training.names(call, backbone, dataset)):
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            random = torch.Generator().manual_seed(0)
            save_file({"similarities": torch.rand(3, 30, generator=random)}, file)


def train(call: Call, job: str, backbone: str, dataset: str, seed: int) -> Path:
    """Train the runs of a pack; return its table."""
    table = Path(grid.pack_table(call, job, {"backbone": backbone, "dataset": dataset, "seed": seed}))
    settings = training.request(call, job, backbone, dataset, seed).model_dump(mode="json")
    request = PackRequest.model_validate(values.read(values.texts(settings, training.params(job))))
    inputs = PackInputs(
        backbone=Path(call.path(layout.BACKBONE, backbone=backbone)),
        verification=Path(call.path(layout.VERIFICATION, backbone=backbone)),
        dataset=Path(places.prepared_folder(call, dataset, request.size)),
        split=Path(call.path(layout.SPLIT, dataset=dataset, seed=seed)),
    )
    if job == "train":
        names = next(iter(training.names(call, backbone, dataset)), None)
        train_pack(inputs, request, "resources/plans", table, CPU, 2**30, names=names)
    else:
        features = call.path(layout.FEATURES, backbone=backbone, dataset=dataset)
        extract_features(inputs.backbone, inputs.verification, inputs.dataset, features, CPU)
        probe_pack(inputs, features, request, table)
    return table


def write_tables(call: Call, packs: list[Path]) -> dict[str, Path]:
    """Write the tables that figures read; return their files, by name."""
    written = {name: Path(call.output, path) for name, path in layout.TABLES.items()}
    runs = tables.collect(packs, tables.CollectedStudy(**results.collect(call)))
    tables.write(runs[tables.run_columns()], written["runs"])
    tables.write(tables.summarise(runs), written["summary"])
    tables.write(tables.bins(runs), written["bins"])
    learned.write(written["runs"], results.learned(call), written)
    matched.write(written["runs"], written["upstream"], written["matched"])
    for analysis in analyses.comparing(call):
        each = product(analyses.compared(call), grid.to_run(call)["dataset"])
        files = [compare(call, analysis, *pair) for pair in each]
        resolve_name(ANALYSES[analysis].tabulated_by)(files, written["runs"], analyses.tables(call, analysis))
    return written


def compare(call: Call, analysis: str, backbone: str, dataset: str) -> Path:
    """Evaluate a backbone beside its dense network; return the table."""
    files = SimpleNamespace(**analyses.networks_to_compare(call, backbone, dataset))
    pattern = layout.ANALYSIS["backbone", "dataset"]
    table = Path(call.path(pattern, analysis=analysis, backbone=backbone, dataset=dataset))
    resolve_name(analyses.compare(call, analysis)["function"])(PairInputs.of(files, dataset), table, CPU)
    return table


def listed_figures(study: Study) -> dict[str, StudyFigure]:
    """Return the study's figures, by name."""
    return results.figures(Call(study))


def draw_figures(call: Call, names: Iterable[str]) -> dict[str, Path]:
    """Draw some figures of the study; return their files, by name."""
    drawn = {name: Path(call.output, f"figures/{name}.png") for name in names}
    for name, file in drawn.items():
        settings = results.figure(call, name)
        content = StudyFigure.from_json(settings["figure"])
        draw.draw(content, results.figure_tables(call, name), settings["style"], [file])
    return drawn

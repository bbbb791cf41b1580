"""A whole study in this process, in seconds: a tiny network on noise of three classes, from packs to tables and
figures, without Snakemake and without a download.

For tests of what a study can be extended by: register something, name it in the study, call `run`.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn

from hiddencost.compression.gate import verify
from hiddencost.compression.make import compress
from hiddencost.compression.photos import Recognised
from hiddencost.datasets import prepared
from hiddencost.datasets.prepare import prepare, user_entry
from hiddencost.datasets.splits import draw_splits
from hiddencost.figures import draw
from hiddencost.figures.registry import FIGURES, figures_of_study
from hiddencost.files import write_json
from hiddencost.methods.registry import JOBS, METHODS
from hiddencost.networks import backbones
from hiddencost.networks.architectures import ARCHITECTURES
from hiddencost.results import learned, matched, tables
from hiddencost.results.gallery import StudyFigure
from hiddencost.runs.features import extract_features
from hiddencost.runs.packfile import PackInputs, PackRequest
from hiddencost.runs.probe import probe_pack
from hiddencost.runs.prompting import train_pack
from hiddencost.study.load import load_study
from hiddencost.study.parts import Backbone
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
    """A study that has run: `tables` by name, as figures read them, and the `figures`' PNG files by name."""

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
    manifest = {
        **{"checkpoint": "mobilenetv2", "architecture": "tiny", "compression": "none", "stem": "0"},
        **{"sparsity_declared": 0.0, "sparsity_over": "convolutions", "upstream_top1": 70.0},
        "preprocessing": {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bilinear"},
    }
    backbones.save(folder, tiny_network().state_dict(), {}, manifest)


def run(config: dict, folder: Path, monkeypatch) -> Finished:
    """Run a study, STUDY with changes, in a folder, of which it makes the current one: packs, tables and figures.

    As the workflow does it, but for checkpoints and downloads: each backbone is made of `tiny_network`, and no photos
    are shown to it; each dataset is noise. The job `finetune` is not run.
    """
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(folder)
    monkeypatch.setitem(ARCHITECTURES, "tiny", tiny_network)
    study = load_study(config, "the study")
    results, imported = Path("results", study.study), Path("resources/backbones/mobilenetv2")
    import_tiny_network(imported)
    for backbone in study.backbones:
        make_backbone(backbone, imported, results, study.verification.sparsity_tolerance)
    for dataset in study.datasets:
        make_dataset(study, dataset.name, results)
    packs = [
        pack
        for backbone in study.backbones
        for dataset in study.datasets
        for seed in study.seeds
        for pack in run_packs(study, backbone, dataset.name, seed, results)
    ]
    written = write_tables(study, packs, results)
    return Finished(study, written, draw_figures(study, written, results))


def make_backbone(backbone: Backbone, imported: Path, results: Path, tolerance: float) -> None:
    """Make a backbone and put it to the gate."""
    folder = results / "backbones" / backbone.name
    settings = backbone.compression and backbone.compression.settings()
    compress(imported, folder, settings, backbone.control)
    known = Recognised(20, 20, "photos", 0)
    verification = verify(folder, {"sparsity_tolerance": tolerance}, lambda network, manifest: known)
    assert verification.passed, verification.reasons
    verification.write(folder / "verification.json")


def make_dataset(study: Study, name: str, results: Path) -> None:
    """Prepare noise, whose classes differ in brightness, at the study's sizes of it, and draw its splits."""
    random, labels = np.random.default_rng(0), np.arange(24) % 3
    images = random.integers(0, 96, (24, 3, 12, 12)) + 64 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    np.savez(f"{name}.npz", x_train=images, y_train=labels, x_test=images[::-1], y_test=labels[::-1])
    for size in {size for backbone in study.backbones for size in study.sizes(name, backbone).values()}:
        prepare(name, user_entry(name, npz=f"{name}.npz"), None, size, f"resources/datasets/{name}/{size}")
    dataset = prepared.load(f"resources/datasets/{name}/{size}")
    for seed in study.seeds:
        split = draw_splits(name, dataset.train_labels, len(dataset.classes), seed)
        write_json(results / f"splits/{name}/seed{seed}.json", {"permutations": split})


def run_packs(study: Study, backbone: Backbone, dataset: str, seed: int, results: Path) -> list[Path]:
    """Train the runs of one (backbone, dataset, seed), a pack for each job that has some; return the packs' files."""
    packs, made = [], results / "backbones" / backbone.name
    for job, size in study.sizes(dataset, backbone).items():
        methods = [name for name in study.methods_of(backbone) if METHODS[name].job == job]
        images, split = Path("resources/datasets", dataset, size), results / f"splits/{dataset}/seed{seed}.json"
        inputs = PackInputs(made, made / "verification.json", images, split)
        request = PackRequest(
            **{"study": study.study, "backbone": backbone.name, "dataset": dataset, "seed": seed, "size": size},
            recipe=study.recipe(JOBS[job].recipe, dataset, backbone.name),
            canvas=study.canvas(backbone),
            runs=[(method, shots) for method in methods for shots in study.shots],
            methods={name: METHODS[name].digest() for name in methods},
            ledger=str(results / "ledger"),
        )
        packs.append(results / JOBS[job].folder / backbone.name / dataset / f"seed{seed}.parquet")
        if job == "train":
            train_pack(inputs, request, "resources/plans", packs[-1], CPU, 2**30)
        elif job == "probe":
            features = results / f"features/{backbone.name}/{dataset}.safetensors"
            extract_features(made, inputs.verification, images, features, CPU)
            probe_pack(inputs, features, request, packs[-1])
    return packs


def write_tables(study: Study, packs: list[Path], results: Path) -> dict[str, Path]:
    """Write the tables that figures read; return their files, by name."""
    written = {name: results / f"tables/{name}.parquet" for name in ("runs", "bins", "mappings", "remapped")}
    written |= {name: results / f"tables/{name}.csv" for name in ("summary", "upstream", "matched")}
    written |= {name: results / f"tables/{name}.npz" for name in ("prompts", "examples")}
    stated = {backbone.name: study.stated(backbone) for backbone in study.backbones}
    grid = {
        **{"backbone": list(stated), "dataset": [dataset.name for dataset in study.datasets]},
        **{"method": study.methods, "shots": study.shots, "seed": study.seeds},
    }
    methods = {backbone.name: study.methods_of(backbone) for backbone in study.backbones}
    nothing = {"backbone": {}, "dataset": {}}
    runs = tables.collect(
        packs, {"study": study.study, "grid": grid, "methods": methods, "backbones": stated, "left_out": nothing}
    )
    tables.write(runs[tables.run_columns()], written["runs"])
    tables.write(tables.summarise(runs), written["summary"])
    tables.write(tables.bins(runs), written["bins"])
    known = {
        backbone.name: {
            **{"top1": None, "as_trained": True, "texts": None},
            "prompt": (study.prompt_settings(backbone) or {}) | {"std": [0.25] * 3},
            "manifest": str(results / f"backbones/{backbone.name}/manifest.json"),
            "verification": str(results / f"backbones/{backbone.name}/verification.json"),
        }
        for backbone in study.backbones
    }
    shown = [figure.backbones for figure in listed_figures(study).values() if figure.kind == "prompts"]
    settings = {
        "ledger": str(results / "ledger"),
        "prepared": {name: next(map(str, Path("resources/datasets", name).iterdir())) for name in grid["dataset"]},
        "groups": [[(name, asdict(backbone)) for name, backbone in group.items()] for group in shown],
        "backbones": known,
    }
    learned.write(written["runs"], settings, {name: str(path) for name, path in written.items()})
    matched.write(written["runs"], written["upstream"], written["matched"])
    return written


def listed_figures(study: Study) -> dict[str, StudyFigure]:
    """Return the study's figures, by name."""
    stated = {backbone.name: study.stated(backbone) for backbone in study.backbones}
    return figures_of_study(stated, [dataset.name for dataset in study.datasets], study.methods, {})


def draw_figures(study: Study, written: dict[str, Path], results: Path) -> dict[str, Path]:
    """Draw the study's figures; return their files, by name."""
    style = study.figures.model_dump() | {"title": study.study, "methods": study.methods}
    style["classes"] = {dataset.name: 3 for dataset in study.datasets}
    drawn = {}
    for name, figure in listed_figures(study).items():
        drawn[name] = results / f"figures/{name}.png"
        read = {table: written[table] for table in FIGURES[figure.kind].tables}
        draw.draw(figure, read, style, [drawn[name]])
    return drawn

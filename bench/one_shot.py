"""Top-1, on photos, of a network pruned in one shot by magnitude, Wanda and SparseGPT, as in docs/networks.md.

    python bench/one_shot.py BACKBONE PHOTOS LEVEL

BACKBONE: the folder of an imported checkpoint with ImageNet-1k's classes, such as resources/backbones/mobilenetv2
after the quickstart. PHOTOS: a folder with photos of all these classes, at any depth, each or its folder named by its
WordNet id, such as ImageNet-1k's val/CLASS/*. LEVEL: the share of the weights to remove. Of 378 photos, drawn by seed
0, the first 128 calibrate, and 250 are classified: shorter side 256 pixels, the central 224.
"""

import re
import sys
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import CenterCrop, Compose, PILToTensor, Resize

from hiddencost.compression.registry import COMPRESSIONS
from hiddencost.networks import backbones
from hiddencost.networks.families import family_of
from hiddencost.networks.inference import FORWARD_BATCH

CALIBRATION, SHOWN = 128, 250
ID = re.compile(r"n\d{8}")
ALGORITHMS = ("magnitude", "wanda", "sparsegpt")


def read(folder: Path, interpolation: str) -> tuple[Tensor, Tensor]:
    """Return photos, uint8 [N, 3, 224, 224], and their classes, int64 [N]: in the order of a draw."""
    found = [
        (path, match[0])
        for path in sorted(folder.rglob("*.*"))
        if (match := ID.search(f"{path.parent.name}/{path.name}"))
    ]
    ids = sorted({one for _, one in found})
    if len(ids) != 1000:
        raise SystemExit(f"{folder}: photos of {len(ids)} classes by their WordNet ids; expected all 1000")
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[: CALIBRATION + SHOWN].tolist()
    look = Compose([Resize(256, Image.Resampling[interpolation.upper()]), CenterCrop(224), PILToTensor()])
    images = [look(Image.open(found[index][0]).convert("RGB")) for index in order]
    return torch.stack(images), torch.tensor([ids.index(found[index][1]) for index in order])


@torch.inference_mode()
def top1(network: nn.Module, images: Tensor, labels: Tensor) -> str:
    """Return the share of images that a network classifies rightly, in %."""
    answers = [network(some).argmax(1) for some in images.split(FORWARD_BATCH["cpu"])]
    return f"{100 * (torch.cat(answers) == labels).float().mean().item():.1f}"


def main(folder: Path, photos: Path, level: float) -> None:
    dense, _, manifest = backbones.load(folder)
    family, cpu = family_of(manifest.architecture), torch.device("cpu")
    mean, std = backbones.normalisation(manifest.preprocessing, cpu)
    pixels, labels = read(photos, manifest.preprocessing.interpolation)
    images = (pixels.float() / 255 - mean) / std
    seen, shown, truth = images[:CALIBRATION], images[CALIBRATION:], labels[CALIBRATION:]
    print(f"{manifest.checkpoint}, {level:.0%} removed: top-1, %, of {len(truth)} photos", flush=True)
    print(f"dense {top1(family.for_inference(dense, cpu), shown, truth)}", flush=True)
    for name in ALGORITHMS:
        entry, network = COMPRESSIONS[name], backbones.load(folder)[0]
        given = {"images": seen} if entry.calibrated else {}
        entry.apply(network, family, entry.complete({"sparsity": level}), **given)
        print(f"{name} {top1(family.for_inference(network, cpu), shown, truth)}", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]))

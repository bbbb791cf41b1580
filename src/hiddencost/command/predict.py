"""Images classified with what a run has learned, a line each."""

import argparse
from collections.abc import Iterator

AXES = ("backbone", "dataset", "method", "shots", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `predict` to its parser."""
    parser.add_argument("model", metavar="MODEL", help="results/STUDY, or a file that save() wrote")
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="a file: PNG, JPEG, WebP, BMP, TIFF, PPM or GIF")
    for axis in AXES:
        parser.add_argument(f"--{axis}", help="of results/STUDY, which run; may be left out where all have the same")
    parser.set_defaults(does=predict)


def predict(arguments: argparse.Namespace) -> str:
    """Return a line for each image: its file, its class and the share of the softmax, with a tab between."""
    from hiddencost.runs.trained import load  # here alone: PyTorch takes seconds

    model = load(arguments.model, **{axis: getattr(arguments, axis) for axis in AXES})
    return "\n".join(_lines(model, arguments.images))


def _lines(model, images: list[str]) -> Iterator[str]:
    import torch

    for path in images:
        with torch.inference_mode():
            scores = model(model.transform([path])).softmax(1)[0]
        best = int(scores.argmax())
        yield f"{path}\t{model.classes[best]}\t{scores[best]:.1%}"

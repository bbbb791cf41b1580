"""First classes of full precision at the price of a lower one, where a device has one that is much faster.

The first class among a thousand is often close to the second, and a lower precision takes one for the other. But
where an image's lead over the second is larger than what rounding moves, it stands. So all images go through the
network in the lower precision, and those of a small lead again, in full. What rounding moves is measured on some of
the very images, in both precisions, with head-room; some images of a large lead are audited, and where one was moved
further than the bound, that grows. On the real MobileNetV2 and 300 images, with the rounding emulated on a CPU, no
class was wrong; 52 to 90 % of the images were certified in TF32, 13 to 58 % in bf16 (`bench/certified.py`,
bench/results/certified.md). On a CPU mappings are in fp32 throughout.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)
FROM = 1024  # images: fewer are computed in full
SAMPLE = 64  # images by which the bound is measured
HEADROOM = 1.5  # times the most that rounding moved among them
RIVALS = 10  # classes of the highest logits: others are too far behind to come first
AUDIT = 64  # of those of a large lead, each so-many-th is computed in full
Logits = Callable[[str], Tensor]  # of some images, [n, classes], in a precision


class Read(Protocol):
    """Computes rows of images, by their numbers."""

    def __call__(self, numbers: Tensor, rows_of: Callable[..., Tensor], columns: Sequence[Tensor] = ()) -> Tensor:
        """Return a row for each image, on the host.

        Args:
            numbers: of the images, int64 [n], in order.
            rows_of: it is given the Logits of some of the images, and the columns' values for them on the device.
            columns: int64 [n] each, on the host.
        """


@dataclass
class Tally:
    """What certification did so far.

    Attributes:
        passes: their number.
        images: all whose class was wanted.
        in_full: those computed in full precision.
        violations: those of them that rounding moved further than the bound.
        bound, precision: of the last pass that used a lower precision.
    """

    passes: int = 0
    images: int = 0
    in_full: int = 0
    violations: int = 0
    bound: float = 0.0
    precision: str = "fp32"

    def __str__(self) -> str:
        if self.in_full == self.images:
            return "all in fp32"
        return (
            f"{self.in_full / self.images:.0%} of {self.images:,} in fp32, the others certified in lower precision, "
            f"last {self.precision}: the ten highest logits moved by less than {self.bound:.2g} against the first; "
            f"the bound was exceeded by {self.violations} images, and raised"
        )


@torch.inference_mode()
def first_classes(read: Read, count: int, milliseconds: Mapping[str, float], tally: Tally) -> Tensor:
    """Return the first class of each image in full precision, int64 [count], on the host.

    Args:
        read: computes rows of images.
        count: of the images.
        milliseconds: what an image takes in each precision; "fp32" is the full one. The lower one that is cheapest
            with those computed again is taken, or none.
        tally: what is done is added to it.
    """
    everything, step = torch.arange(count), max(1, count // SAMPLE)
    sample = everything[tally.passes % step :: step]  # others in each pass
    full = read(sample, lambda logits: logits("fp32"))
    bounds, costs = {}, {"fp32": milliseconds["fp32"]}
    for precision in [precision for precision in milliseconds if precision != "fp32"]:
        places, rounded = _rivals(read, sample, precision)
        bounds[precision] = HEADROOM * _moved(rounded, full.gather(1, places)).max().item()
        doubtful = ~(_lead(rounded) > bounds[precision])  # also where it is not a number
        costs[precision] = milliseconds[precision] + doubtful.double().mean().item() * milliseconds["fp32"]
    precision = min(costs, key=costs.__getitem__)
    tally.passes += 1
    tally.images += count
    known = torch.zeros(count, dtype=torch.bool)
    known[sample] = True
    if precision == "fp32":
        classes = torch.zeros(count, dtype=torch.int64)
        classes[~known] = read(everything[~known], lambda logits: logits("fp32").argmax(1))
    else:
        places, rounded = _rivals(read, everything, precision)
        classes, lead, bound = places[:, 0], _lead(rounded), bounds[precision]
        pending = ~known & (~(lead > bound) | (everything % AUDIT == tally.passes % AUDIT))
        while pending.any():
            again = read(everything[pending], _first_and, list(places[pending].T))
            classes[pending] = again[:, 0].long()
            known |= pending
            moved = _moved(rounded[pending], again[:, 1:])
            if exceeding := int((~(moved <= bound)).sum()):
                tally.violations += exceeding
                bound = HEADROOM * moved.max().item()
                log.info("%s moved %d of %d images by more than was measured", precision, exceeding, len(moved))
            pending = ~known & ~(lead > bound)
        tally.bound, tally.precision = bound, precision
    classes[sample] = full.argmax(1)
    tally.in_full += count if precision == "fp32" else int(known.sum())
    return classes


def _rivals(read: Read, numbers: Tensor, precision: str) -> tuple[Tensor, Tensor]:
    """Return of each image the classes of the highest logits in a precision, the first first, int64 [n, RIVALS], and
    those logits."""

    def rows(logits: Logits) -> Tensor:
        rounded = logits(precision)
        highest, places = rounded.topk(min(RIVALS, rounded.shape[1]), dim=1)
        return torch.cat([highest, places.to(highest.dtype)], 1)  # exact, up to 2^24 classes

    highest, places = read(numbers, rows).chunk(2, dim=1)
    return places.long(), highest


def _first_and(logits: Logits, *rivals: Tensor) -> Tensor:
    """Return of each image the first class in full precision, and the logits of its rivals, [n, 1 + RIVALS]."""
    full = logits("fp32")
    return torch.cat([full.argmax(1, keepdim=True).to(full.dtype), full.gather(1, torch.stack(rivals, 1))], 1)


def _lead(highest: Tensor) -> Tensor:
    return highest[:, 0] - highest[:, 1]


def _moved(rounded: Tensor, full: Tensor) -> Tensor:
    """Return by how much rounding has moved each image's rivals against its first class, at most."""
    error = rounded - full
    return (error - error[:, :1]).abs().amax(1)

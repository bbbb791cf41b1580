"""First classes of full precision at nearly the price of a lower one.

The first class among a thousand is often close to the second, and a lower precision takes one for the other (on the
real MobileNetV2: TF32 for 1 to 4 images of 100, bf16 for 4 to 14; bench/certified.py). But where an image's lead over
the second is larger than what rounding moves, it stands. So all images go through the network in the lower precision,
and those of a small lead again, in full. What rounding moves is measured on some of the very images, in both
precisions, with head-room; images of a large lead are audited, and where one was moved further, the bound grows.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

log = logging.getLogger(__name__)

FROM = 512  # images: fewer are computed in full
SAMPLE = 64  # images by which the bound is measured
HEADROOM = 1.5  # times the most that rounding moved among them
RIVALS = 10  # classes of the highest logits: others are too far behind to come first
AUDIT = 64  # of those of a large lead, each so-many-th is computed in full

Logits = Callable[[str], Tensor]  # of some images, [n, classes], in a precision
Read = Callable[[Tensor, Callable[[Logits], Tensor]], Tensor]  # of images by number, a row each, to the host


@dataclass
class Tally:
    """What certification did so far: images asked for, those computed in full, and those of them (`violations`) that
    rounding moved further than the bound, which `bound` tells as it was last."""

    images: int = 0
    in_full: int = 0
    violations: int = 0
    bound: float = 0.0
    precision: str = "fp32"

    def __str__(self) -> str:
        if not self.images:
            return "none in lower precision"
        return (
            f"{self.in_full / self.images:.0%} of {self.images:,} in fp32, the others certified in lower precision, "
            f"last {self.precision}: the ten highest logits moved by less than {self.bound:.2g} against the first; "
            f"the bound was exceeded by {self.violations} images, and raised"
        )


def first_classes(read: Read, count: int, milliseconds: Mapping[str, float], tally: Tally) -> Tensor:
    """Return the first class of each image in full precision, int64 [count].

    read: computes some of the images. milliseconds: what an image takes in each precision; "fp32" is the full one.
    The lower one that is cheapest with those computed again is taken, or none.
    """
    lower = [precision for precision in milliseconds if precision != "fp32"]
    sample = torch.arange(0, count, count // SAMPLE)
    measured = read(sample, lambda logits: _compared(logits, lower))
    bounds = {precision: HEADROOM * measured[:, 2 + 2 * at].max().item() for at, precision in enumerate(lower)}
    cost = {"fp32": milliseconds["fp32"]}
    for at, precision in enumerate(lower):
        doubtful = ~(measured[:, 1 + 2 * at] > bounds[precision])  # also where it is not a number
        cost[precision] = milliseconds[precision] + doubtful.double().mean().item() * sum(
            milliseconds[one] for one in ("fp32", precision)
        )
    precision = min(cost, key=cost.get)
    everything = torch.arange(count)
    tally.images += count
    if precision == "fp32":
        tally.in_full += count
        return read(everything, lambda logits: logits("fp32").argmax(1)).long()
    classes, lead = read(everything, lambda logits: _led(logits(precision))).unbind(1)
    bound, known = bounds[precision], torch.zeros(count, dtype=torch.bool)
    classes[sample], known[sample] = measured[:, 0], True
    asked = ~known & (~(lead > bound) | (everything % AUDIT == 1))
    while asked.any():
        again = read(asked.nonzero().squeeze(1), lambda logits: _compared(logits, [precision]))
        classes[asked] = again[:, 0]
        known |= asked
        moved = again[:, 2]
        if exceeding := int((~(moved <= bound)).sum()):
            tally.violations += exceeding
            bound = HEADROOM * moved.max().item()
            log.info(
                "%s moved %d of %d images by more than the bound, now %.2g", precision, exceeding, len(moved), bound
            )
        asked = ~known & ~(lead > bound)
    tally.in_full += int(known.sum())
    tally.bound, tally.precision = bound, precision
    return classes.long()


def _led(logits: Tensor) -> Tensor:
    """Return of each image the first class and its lead over the second, [n, 2]."""
    (first, second), (which, _) = (part.unbind(1) for part in logits.topk(2, dim=1))
    return torch.stack([which.to(logits.dtype), first - second], 1)


def _compared(logits: Logits, lower: Sequence[str]) -> Tensor:
    """Return of each image the first class in full precision, and for each lower one its own lead there, and how far
    its rivals' logits were moved against the first's at most: [n, 1 + 2 x lower]."""
    full = logits("fp32")
    columns = [full.argmax(1, keepdim=True).to(full.dtype)]
    for precision in lower:
        rounded = logits(precision).to(full.dtype)
        rivals = rounded.topk(min(RIVALS, rounded.shape[1]), dim=1).indices
        error = (rounded - full).gather(1, rivals)
        columns += [_led(rounded)[:, 1:], (error - error[:, :1]).abs().amax(1, keepdim=True)]
    return torch.cat(columns, 1)

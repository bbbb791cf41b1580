"""Upstream training: networks that a study trains itself, dense or sparsified, before it adapts them.

Here is what a study says of it; `data`, `sparsifiers` and `training` do it.
"""

import math
from collections.abc import Mapping
from itertools import count, pairwise, takewhile
from pathlib import Path

from hiddencost.files import canonical, sha256_text

# What each algorithm is told beside its sparsity, with what it is where a study does not say. Sources: `sparsifiers`.
SPARSIFIERS: dict[str, dict] = {
    "gmp": {"begin": 0.2, "end": 0.75, "interval": 100},
    "acdc": {"warm_up": 0.1, "phase": 0.05, "fine_tuning": 0.15},
    "rigl": {"distribution": "erk", "drop": 0.3, "end": 0.75, "interval": 100},
    "lth": {"share": 0.2, "rewind_epoch": 1},
}


def with_defaults(sparsify: Mapping | None) -> dict | None:
    """Return the settings of a sparsifier (`algorithm`, `sparsity`, ...) with what the study does not say; None of
    dense training."""
    if sparsify is None:
        return None
    told = {key: value for key, value in sparsify.items() if value is not None}
    return SPARSIFIERS[told["algorithm"]] | told


def label(sparsify: Mapping | None) -> str:
    """Return what the folder of a sparsifier is called: its algorithm, with a hash of settings that are not the
    defaults; "dense" where there is none."""
    if sparsify is None:
        return "dense"
    settings = with_defaults(sparsify)
    algorithm = settings["algorithm"]
    own = {key: settings[key] for key, value in SPARSIFIERS[algorithm].items() if settings[key] != value}
    return f"{algorithm}-{sha256_text(canonical(own))[:8]}" if own else algorithm


def lottery_levels(sparsity: float, share: float) -> list[float]:
    """Return the sparsity after each round of iterative pruning: 1 - (1 - share)^r, until `sparsity`, which ends it.

    Each round prunes the same share of what is left (Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019,
    section 2); the last one less, so that the declared sparsity is met. The levels before one are its own levels.
    """
    levels = (as_level(1 - (1 - share) ** number) for number in count(1))
    return [*takewhile(lambda level: level < as_level(sparsity), levels), as_level(sparsity)]


def as_level(sparsity: float) -> float:
    """Return a sparsity to the digits that its folder has: a ten-thousandth of a per cent."""
    return round(sparsity, 6)


def sparse_phases(steps: int, warm_up: float, phase: float, fine_tuning: float) -> list[tuple[int, int]]:
    """Return AC/DC's compressed phases, as steps after which each begins and ends.

    After a dense warm-up, compressed and dense phases of one length alternate, as many pairs as fit; what is left
    before the final, compressed fine-tuning is dense, too. The defaults (`SPARSIFIERS`) are the published schedule of
    ResNet-50: of 100 epochs, compressed are 10 to 15, 20 to 25, ..., 70 to 75 and 85 to 100 (Peste et al., AC/DC,
    NeurIPS 2021, section 5; github.com/IST-DASLab/ACDC, configs/neurips/iht_imagenet_resnet50_insta_cosinelr_*.yaml).
    Raises ValueError where the training is too short for them.
    """
    pairs = math.floor(round((1 - fine_tuning - warm_up) / (2 * phase), 6))
    starts = [warm_up + 2 * phase * number for number in range(pairs)]
    found = [(round(start * steps), round((start + phase) * steps)) for start in starts]
    found.append((round((1 - fine_tuning) * steps), steps))
    bounds = [step for one in found for step in one]
    if bounds[0] < 1 or any(later <= before for before, later in pairwise(bounds)):
        raise ValueError(
            f"acdc: {steps} steps are too few for {len(found)} compressed phases, dense ones between them"
        )
    return found


def check_schedule(settings: Mapping, steps: int) -> None:
    """Refuse, with ValueError, a training of too few steps for a sparsifier's settings (all of them, see
    `with_defaults`)."""
    begin, end = (round(settings.get(key, 0) * steps) for key in ("begin", "end"))
    match settings["algorithm"]:
        case "gmp":
            if settings["interval"] > end - begin:
                raise ValueError(
                    f"gmp: interval is {settings['interval']} steps; expected at most {end - begin}, the steps from "
                    f"begin to end of {steps}"
                )
        case "rigl":
            if settings["interval"] >= end:
                raise ValueError(
                    f"rigl: interval is {settings['interval']} steps; expected less than {end}, where the last "
                    f"change of {steps} steps may be"
                )
        case "acdc":
            sparse_phases(steps, *(settings[key] for key in SPARSIFIERS["acdc"]))


TEST_FOLDERS = ("val", "validation", "test")


def folder_of_tests(folder: Path) -> Path:
    """Return where the test images of a folder with train/CLASS/* are. Raises ValueError where it is none."""
    found = [folder / name for name in TEST_FOLDERS if (folder / name).is_dir()]
    if not found or not (folder / "train").is_dir():
        raise ValueError(
            f"{folder}: expected folders train/ and {'/, or '.join(TEST_FOLDERS)}/ there, of a folder a class"
        )
    return found[0]


def folder_entry(name: str, folder: str) -> dict:
    """Return a folder of images as `data.load` takes it, with the names of its classes: a class more or less trains
    anew, other images do not, as ImageNet's are too many to look at. Raises ValueError where it is none."""
    path = Path(folder).expanduser().absolute()
    try:
        folder_of_tests(path)
    except ValueError as error:
        raise ValueError(f"upstream {name}: folder: {error}") from None
    return {"folder": str(path), "classes": sorted(one.name for one in (path / "train").iterdir() if one.is_dir())}

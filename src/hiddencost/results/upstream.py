"""What networks reach upstream: as published, as measured after training, or on the photos of their verification."""

import pandas as pd
from scipy.stats import binomtest

from hiddencost.results.intervals import CONFIDENCE

ENOUGH = 100  # photos: of fewer the number that is known is told as it is, and no percentage is made of it
COLUMNS = ["backbone", "top1", "photos", "photos_shown", "photos_top1", "photos_low", "photos_high"]


def share(right: float | None, shown: float | None) -> tuple[float, float, float] | None:
    """Return how many of the photos a network classifies rightly, in %, and the ends of the 95 % interval by Wilson
    (Journal of the American Statistical Association 22, 1927); None where fewer than `ENOUGH` were shown."""
    if right is None or shown is None or not shown >= ENOUGH:
        return None
    low, high = binomtest(int(right), int(shown)).proportion_ci(CONFIDENCE, "wilson")
    return 100 * right / shown, 100 * low, 100 * high


def with_shares(known: pd.DataFrame) -> pd.DataFrame:
    """Return what is known of backbones with the share of the photos that each classifies rightly.

    Args:
        known: `backbone`, `top1` (%), `photos` (the number classified rightly) and `photos_shown` (of how many).

    Returns:
        The table with `COLUMNS`: what `share` gives stands in the last three.
    """
    shares = [
        share(right, shown) or (None,) * 3
        for right, shown in zip(known["photos"], known["photos_shown"], strict=True)
    ]
    table = known.join(pd.DataFrame(shares, known.index, COLUMNS[4:]))
    return table.astype(dict.fromkeys(COLUMNS[1:], float))


def reached(upstream: pd.DataFrame, compressed: list[str]) -> pd.DataFrame:
    """Return the upstream accuracies by which a study's networks are compared, all of one kind.

    It is the top-1 as published or as trained, or the share of the photos where that is known of more of the
    compressed networks: of those that are compressed in one shot nothing is published. The two are never mixed, as
    the photos may be of the training images.

    Args:
        upstream: as in upstream.csv.
        compressed: the names of the compressed networks.

    Returns:
        By backbone: `top1` (%) and, of photos, its interval `low` to `high` and how many were `shown`.
    """
    table = upstream.set_index("backbone").reindex(columns=COLUMNS[1:])
    known = table.reindex(compressed)
    if known["photos_top1"].count() > known["top1"].count():
        columns = {"photos_top1": "top1", "photos_low": "low", "photos_high": "high", "photos_shown": "shown"}
        return table[list(columns)].rename(columns=columns)
    return table[["top1"]].assign(low=float("nan"), high=float("nan"), shown=float("nan"))

"""Splits of our own, where a dataset is published without: by the SHA-256 of the images' names."""

import hashlib
from collections.abc import Sequence

import numpy as np

from hiddencost.messages import Record


class HashSplit(Record, strict=True):
    """How many images of each class are for testing, as a share, or for training, as a number."""

    test_share: float | None = None
    train_per_class: int | None = None


def split_by_hash(names: Sequence[str], labels: Sequence[int], shares: HashSplit) -> tuple[list[int], list[int]]:
    """Split images class by class, by the SHA-256 of their names: the same on every machine and in every version.

    In the order of the hashes, the first round(test_share x images) of a class, at least one, are test images and the
    others training images; or its first `train_per_class` are training images and the others test images.

    Args:
        names: CLASS/FILE of each image.
        labels: of each image.
        shares: which of a class are for testing.

    Returns:
        The indices of the training and of the test images, ascending.

    Raises:
        ValueError: a class would have no training or no test image.
    """
    of_images = np.asarray(labels)
    train: list[int] = []
    test: list[int] = []
    for label in np.unique(of_images):
        members = np.flatnonzero(of_images == label).tolist()
        order = sorted(members, key=lambda index: _digest(names[index]))
        if not (first := shares.train_per_class):
            assert shares.test_share is not None, "expected a share or a number"
            first = max(1, round(shares.test_share * len(order)))
        if first >= len(order):
            raise ValueError(f"{names[order[0]]}: its class has {len(order)} images, too few for the split")
        drawn, others = (train, test) if shares.train_per_class else (test, train)
        drawn += order[:first]
        others += order[first:]
    return sorted(train), sorted(test)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()  # of a file whose name is no text, too

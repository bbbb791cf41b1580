"""Few-shot splits: one permutation of each class, of which every budget takes the first images."""

import hashlib

import numpy as np


def draw_splits(dataset: str, labels: np.ndarray, classes: int, seed: int) -> list[list[int]]:
    """Permute the training images of each class; N shots are the first N, so budgets nest.

    The order is that of the images' SHA-256 under (dataset, seed): it is the same on every machine and with every
    version of every library. labels: int [N]. Returns for each class the indices of its images, permuted.
    """

    def key(index: int) -> bytes:
        return hashlib.sha256(f"{dataset}/seed{seed}/{index}".encode()).digest()

    return [sorted(np.flatnonzero(labels == label).tolist(), key=key) for label in range(classes)]


def take_shots(permutations: list[list[int]], shots: int | str) -> list[int]:
    """Return the indices of N shots (class by class), or of all images for "full".

    A class with fewer than N images gives all that it has.
    """
    count = None if shots == "full" else int(shots)
    return [index for permutation in permutations for index in permutation[:count]]

import numpy as np

from hiddencost.datasets.splits import draw_splits, take_shots

LABELS = np.array([0] * 30 + [1] * 5 + [2] * 30)


def test_budgets_nest_and_are_balanced():
    permutations = draw_splits("cifar10", LABELS, 3, seed=1)
    one, four, full = (take_shots(permutations, shots) for shots in (1, 4, "full"))
    assert len(one) == 3
    assert len(four) == 12
    assert set(one) < set(four) < set(full)
    assert sorted(full) == list(range(65))
    assert np.bincount(LABELS[four]).tolist() == [4, 4, 4]


def test_a_small_class_gives_all_it_has():
    chosen = take_shots(draw_splits("cifar10", LABELS, 3, seed=1), 10)
    assert np.bincount(LABELS[chosen]).tolist() == [10, 5, 10]


def test_the_permutation_depends_on_dataset_and_seed_alone_and_never_changes():
    assert draw_splits("cifar10", LABELS, 3, seed=0)[1] == [32, 34, 30, 33, 31]
    assert draw_splits("cifar10", LABELS, 3, seed=0) != draw_splits("cifar10", LABELS, 3, seed=1)
    assert draw_splits("cifar10", LABELS, 3, seed=0) != draw_splits("svhn", LABELS, 3, seed=0)


def test_a_class_without_images_gives_none():
    assert take_shots(draw_splits("cifar10", np.array([0, 0, 2]), 3, seed=0), 1)[1:] == [2]

"""Chance: whether networks did better than by guessing."""

import pandas as pd
from scipy.special import ndtri

from hiddencost.results.intervals import ROUNDING, t_quantile

ONE_SIDED = 0.9  # the level of a two-sided interval whose lower end is a one-sided 95 % bound
SEVERAL = 3  # seeds, from which on all above chance are more than luck of their mappings


def surely_above(runs: pd.DataFrame, groups: pd.Series) -> pd.Series:
    """Say which groups of runs are, each taken together, surely better than guessing.

    What is held against 1 / K of K classes is the mean accuracy over classes (`mean_class_accuracy`): a network that
    always guesses alike does not exceed it either, however many test images a class has. Of each seed its mean over
    datasets is taken. A group is surely above where the mean over seeds is, by its one-sided 95 % bound (Student's
    t); or where each seed is, by that of its test images (binomial, as a normal distribution, as if classes had the
    same number of them): seeds that scatter far above chance are no guesses either. One seed or two show nothing of
    how far mappings scatter, which may move all images of a class alike: in place of images their K classes count.

    Args:
        runs: a row a run that has a result: `dataset`, `seed`, `mean_class_accuracy`, `classes` (K) and `n_test`.
        groups: of each run.

    Returns:
        Bool by group; True, too, where K is not known.
    """
    chance, several = 1 / runs["classes"], runs["seed"].groupby(groups).transform("nunique") >= SEVERAL
    units = pd.DataFrame(
        {
            "excess": runs["mean_class_accuracy"] - chance,
            "variance": chance * (1 - chance) / runs["n_test"].where(several, runs["classes"]),
            "group": groups,
            **{name: runs[name] for name in ("seed", "dataset")},
        }
    )
    of_seed = units.groupby(["group", "seed", "dataset"]).mean().groupby(["group", "seed"])  # same test images
    excess, error = of_seed["excess"].mean(), of_seed["variance"].sum() ** 0.5 / of_seed.size()
    by_images = (excess > ndtri((1 + ONE_SIDED) / 2) * error).groupby("group").all()
    mean, std, count = (excess.groupby("group").agg(what) for what in ("mean", "std", "count"))
    freedom = (count - 1).where((count > 1) & (std > ROUNDING))
    by_seeds = mean > t_quantile(freedom, ONE_SIDED) * std / count**0.5
    return by_images | by_seeds | mean.isna()

"""Chance: which runs surely do better than guessing."""

import numpy as np
import pandas as pd
from scipy.special import betainc, stdtr

from hiddencost.methods.registry import METHODS
from hiddencost.results.evidence import holm
from hiddencost.results.intervals import ROUNDING

ARM = ["backbone", "dataset", "method", "shots"]  # of runs that differ in their seeds alone
SEVERAL = 3  # seeds, from which on all above chance are more than luck of the mappings that they draw


def surely_above(runs: pd.DataFrame) -> pd.Series:
    """Say which runs are of an arm (a backbone, dataset, method and number of shots) that is surely no guess.

    By Holm's procedure (see `evidence.holm`) any of the arms given that guesses is said to be none with a chance of
    about 2.5 %.

    Args:
        runs: a row a run that has a result, none twice, see `p_values`.

    Returns:
        Bool by run; True, too, where it is not known how many classes there are.
    """
    found = p_values(runs).dropna()
    guesses = found.index[found.rank(method="first") > holm(found.to_numpy())]
    return ~_arms(runs).isin(guesses)


def p_values(runs: pd.DataFrame) -> pd.Series:
    """Return of each arm how likely guesses are to do as well.

    What is held against 1 / K of K classes is the mean accuracy over classes (`mean_class_accuracy`): a network that
    always guesses alike does not exceed it either, however many test images a class has. There are two tests, of
    which the surer counts: of the mean over seeds, by Student's t; and of each seed by its test images (binomial, as
    if classes had the same number of them), whose least sure seed counts. A single seed has the second alone. Several
    that scatter far above chance pass it, too, and guesses hardly ever.

    One seed or two show nothing of how far mappings scatter that are drawn at random, without a look at what the
    network predicts (RLM-VP). Such a mapping may have all images of a class right by luck, so there the K classes
    count in place of the images, and of two or three classes nothing is sure.

    Args:
        runs: a row a run that has a result, none twice: `ARM`, `seed`, `mean_class_accuracy`, `classes` (K) and
            `n_test`.

    Returns:
        By number of the arm, in the order of the runs; NaN where K is not known.
    """
    arm = _arms(runs)
    blind = [name for name, method in METHODS.items() if method.prompts and not method.maps_by_predictions]
    few = runs["method"].isin(blind) & (runs["seed"].groupby(arm).transform("nunique") < SEVERAL)
    trials, chance = runs["n_test"].where(~few, runs["classes"]), 1 / runs["classes"]
    right = np.floor(runs["mean_class_accuracy"] * trials + ROUNDING).clip(lower=1)  # of none, too, P is near 1
    of_images = pd.Series(betainc(right, trials - right + 1, chance), runs.index)  # P(X >= right) of a binomial X
    excess = (runs["mean_class_accuracy"] - chance).groupby(arm)
    mean, std, count = excess.mean(), excess.std(), excess.count()
    spread = (count > 1) & (std > ROUNDING)
    of_seeds = stdtr((count - 1).clip(lower=1), -mean * count**0.5 / std.where(spread, 1))
    return np.minimum(of_images.groupby(arm).max(), of_seeds.where(spread, 1.0)).where(mean.notna())


def _arms(runs: pd.DataFrame) -> pd.Series:
    return runs.groupby(ARM, sort=False).ngroup()

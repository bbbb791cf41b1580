"""Chance: which runs surely do better than guessing."""

import numpy as np
import pandas as pd
from scipy.special import betainc
from scipy.stats import false_discovery_control

from hiddencost.methods.registry import METHODS
from hiddencost.results.evidence import RISK
from hiddencost.results.intervals import ROUNDING

ARM = ["backbone", "dataset", "method", "shots"]  # of runs that differ in their seeds alone


def surely_above(runs: pd.DataFrame) -> pd.Series:
    """Say which runs are of an arm (a backbone, dataset, method and number of shots) that is surely no guess.

    By the procedure of Benjamini and Hochberg (Journal of the Royal Statistical Society B 57, 1995): of the arms that
    are said to be none, 2.5 % guess, on average, at most. Where all guess, that is the chance of any being said to be
    none. How many arms there are decides nothing, as it would by Holm's: what each is held against follows the share
    that does not guess.

    Args:
        runs: a row a run that has a result, none twice, see `p_values`.

    Returns:
        Bool by run; True, too, where it is not known how many classes there are.
    """
    found = p_values(runs).dropna()
    guesses = found.index[false_discovery_control(found) > RISK] if len(found) else []
    return ~_arms(runs).isin(guesses)


def p_values(runs: pd.DataFrame) -> pd.Series:
    """Return of each arm how likely guesses are to do as well, at most.

    What is held against 1 / K of K classes is the mean accuracy over classes (`mean_class_accuracy`): a network that
    always guesses alike does not exceed it either, however many test images a class has. Each seed is held against it
    by its test images (binomial, as if each class had as few as the smallest: wherever guesses fall, they scatter no
    further), and the least sure seed counts. Seeds that agree with one another are no further evidence, as all have
    the same test images: a guess that has luck with these has it with each seed.

    A mapping that is drawn at random, without a look at what the network predicts (RLM-VP), may have all images of a
    class right by luck. There the K classes of each seed count in place of the images, of all seeds together, as each
    draws a mapping of its own; of a mapping by names, which is the same for all seeds, those of one.

    Args:
        runs: a row a run that has a result, none twice: `ARM`, `mean_class_accuracy`, `classes` (K) and
            `n_test_fewest` (see `tables.collect`); where that is not known, each class counts as an image.

    Returns:
        By number of the arm, in the order of the runs; NaN where K is not known.
    """
    arm, classes = _arms(runs), runs["classes"]
    blind = [name for name, method in METHODS.items() if method.prompts and not method.maps_by_predictions]
    drawn, of_arm = runs["method"].isin(blind), runs["mean_class_accuracy"].groupby(arm)
    share = runs["mean_class_accuracy"].where(~drawn, of_arm.transform("mean"))
    by_names = runs["method"].isin([name for name, method in METHODS.items() if method.reads_names])
    mappings = of_arm.transform("count").where(~by_names, 1)
    trials = classes * runs["n_test_fewest"].fillna(1).where(~drawn, mappings)
    right = np.floor(share * trials + ROUNDING).clip(lower=1)  # of none, too, P is near 1
    at_least = pd.Series(betainc(right, trials - right + 1, 1 / classes), runs.index)  # P(X >= right) of a binomial X
    return at_least.groupby(arm).max()


def _arms(runs: pd.DataFrame) -> pd.Series:
    return runs.groupby(ARM, sort=False).ngroup()

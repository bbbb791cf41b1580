"""With which dense network one is compared: as the study names it, and so the paper, or by its training recipe."""

import pandas as pd


def with_same_recipe(runs: pd.DataFrame) -> pd.DataFrame:
    """Return runs, each with the dense network of its backbone's own training recipe to be compared with.

    Sparse ResNet-50s come from recipes like that of torchvision's first weights, and the paper compares them with the
    second ones, of a newer recipe, so that the recipe is part of what they lose. A dense network is its own
    counterpart here, whatever the study compares it with.

    Args:
        runs: as in runs.parquet.

    Returns:
        Them with `dense`: the network that `recipe_dense` names, or where the study has none of the recipe, that of
        `dense`; and `other_recipe`: whether it is this.
    """
    other = runs["recipe_dense"].isna() & runs["dense"].notna()
    return runs.assign(dense=runs["recipe_dense"].where(~other, runs["dense"]), other_recipe=other)

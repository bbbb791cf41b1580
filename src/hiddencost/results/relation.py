"""How the cells of a claim relate to the paper's: recipe, networks, datasets, budgets and seeds."""

import json
from collections.abc import Collection, Container, Iterator

import pandas as pd

from hiddencost import catalog
from hiddencost.messages import Record, listed
from hiddencost.methods.registry import METHODS
from hiddencost.results.cells import dataset_units, trains
from hiddencost.results.claims import Cells, Claim
from hiddencost.runs.packfile import AXES

AS_IN_PAPER = "as in the paper"
SHOWN = 3  # names in a list


class Paper(Record):
    """The study of the paper, of catalog/paper.yaml.

    Attributes:
        seeds: how many.
        shots: those that are known.
        networks: names of checkpoints.
        not_planned: names of those that only its third version has: its own where a study has them, and none that a
            study lacks.
        image_sizes: by dataset, in pixels.
        splits: by dataset, how it is split otherwise than here.
        recipes: by job, what is known of each of its recipes.
    """

    seeds: int
    shots: list[str]
    networks: list[str]
    not_planned: list[str]
    image_sizes: dict[str, int]
    splits: dict[str, str]
    recipes: dict[str, list[dict]]

    def backbones(self) -> pd.DataFrame:
        """Return its networks as rows of a study."""
        entries = {name: catalog.checkpoint(name) for name in self.networks}
        rows = [[name, name, entry.compression, None] for name, entry in entries.items()]
        return pd.DataFrame(rows, columns=["backbone", "checkpoint", "compression", "control"])


def compared(runs: pd.DataFrame, pairs: pd.DataFrame, with_dense: bool) -> pd.DataFrame:
    """Return the runs that a claim compares.

    Args:
        runs: a row a run, as in runs.parquet.
        pairs: as `verdicts.differences` returns them, those that have a difference.
        with_dense: whether each run of a pair is compared with that of its dense backbone.

    Returns:
        Rows of runs, once for each pair that they are in, with `pair`, its label, and `difference`: of those of a
        pair that have it in common, one is taken from the other.
    """
    sides = ["_left", "_right"] if any(name.endswith("_left") for name in pairs) else [""]
    parts = []
    for side in sides:
        names = {axis: axis if axis in pairs else f"{axis}{side}" for axis in (*AXES, "dense")}
        keys = pd.DataFrame({axis: pairs[name] for axis, name in names.items()})
        keys = keys.assign(pair=pairs.index, difference=side if with_dense else "")
        parts.append(keys.drop(columns="dense"))
        if with_dense:
            parts.append(keys.assign(backbone=keys["dense"]).drop(columns="dense"))
    return pd.concat(parts).merge(runs, on=AXES)


def relation(
    rows: pd.DataFrame,
    claim: Claim,
    spoken_of: Collection[str],
    own: Collection[str],
    made: Collection[str],
    paper: Paper,
) -> str:
    """Say how the cells of a claim differ from the paper's, values with the paper's in brackets.

    Args:
        rows: the runs that it compares, see `compared`; `recipe` is the one by which each was trained, `budgets` the
            numbers of shots that choose its images, joined by commas.
        claim: what is claimed.
        spoken_of: names of those of the paper's networks that it speaks of.
        own: names of checkpoints whose files are the user's own.
        made: of those in whose place are networks that another study made: others than the paper's.
        paper: what it is held against.

    Returns:
        What is otherwise, and what of the paper's is missing; `AS_IN_PAPER` where nothing is.
    """
    parts = [
        *_recipes(rows, paper),
        *_networks(rows, spoken_of, own, made, paper),
        *_datasets(rows, claim.cells, paper),
        *_budgets(rows, claim, paper),
    ]
    if (seeds := rows["seed"].nunique()) < paper.seeds:
        parts.append(f"{seeds} seed{'s' if seeds > 1 else ''} (paper: {paper.seeds})")
    return "; ".join(parts) or AS_IN_PAPER


def _recipes(rows: pd.DataFrame, paper: Paper) -> Iterator[str]:
    found: dict[tuple[str, str], list] = {}
    trained = rows[trains(rows) & rows["recipe"].notna()]
    for method, dataset, recipe in trained[["method", "dataset", "recipe"]].drop_duplicates().to_numpy():
        stated = json.loads(recipe)
        known = paper.recipes.get(METHODS[method].job, [])
        expected = dict(max(known, key=lambda one: len(one.keys() & stated.keys()), default={}))
        if "image_size" in stated and dataset in paper.image_sizes:
            expected["image_size"] = paper.image_sizes[dataset]
        for key, value in expected.items():
            # a recipe that has no such key, such as one of steps and no epochs, is another
            is_stated = "none" if stated.get(key) is None else stated[key]
            if is_stated != value and is_stated not in (seen := found.setdefault((key, str(value)), [])):
                seen.append(is_stated)
    for (key, value), others in found.items():
        yield f"{key.replace('_', ' ')} {' or '.join(map(str, others))} (paper: {value})"


def _networks(
    rows: pd.DataFrame, spoken_of: Collection[str], own: Collection[str], made: Collection[str], paper: Paper
) -> Iterator[str]:
    names = [*paper.networks, *paper.not_planned]
    published = {name: catalog.checkpoint(name).compression for name in names}
    networks = rows[rows["control"].isna()].drop_duplicates("backbone")
    is_made = networks["checkpoint"].isin(made)
    if trained := sorted(networks.loc[is_made, "backbone"]):
        yield f"trained by a study here: {_some(trained)}"
    networks = networks[~is_made]
    of_paper = networks["checkpoint"].map(published) == networks["compression"]
    if others := sorted(networks.loc[~of_paper, "backbone"]):
        yield f"other network{'s' if len(others) > 1 else ''}: {_some(others)}"
    there = set(networks.loc[of_paper, "checkpoint"])
    yield from (f"{name} is a file of one's own" for name in sorted(there & set(own)))
    yield from _without(there, spoken_of, "networks")


def _datasets(rows: pd.DataFrame, cells: Cells, paper: Paper) -> Iterator[str]:
    names = sorted(rows["dataset"].unique())
    if others := [name for name in names if name not in paper.image_sizes]:
        yield f"other dataset{'s' if len(others) > 1 else ''}: {_some(others)}"
    yield from (f"split of {name} (paper: {paper.splits[name]})" for name in names if name in paper.splits)
    known = catalog.datasets()
    wanted = [name for name in paper.image_sizes if not known[name].variant_of]
    wanted = [
        name for name in wanted if name in (cells.datasets or wanted) and name not in (cells.except_datasets or [])
    ]
    there = rows.loc[~rows["dataset"].isin(others), "dataset"]
    yield from _without(set(dataset_units(there)), wanted, "datasets")


def _budgets(rows: pd.DataFrame, claim: Claim, paper: Paper) -> Iterator[str]:
    sides = [side for side in (claim.cells, claim.left, claim.right) if side and side.shots]
    wanted = [str(shots) for side in sides for shots in side.shots or []] or paper.shots
    there = {shots for together in rows["budgets"].unique() for shots in together.split(",")}
    yield from _without(there, wanted, "budgets", named="shots ")


def _without(there: Container, wanted: Collection[str], what: str, named: str = "") -> Iterator[str]:
    """Say what of the paper's is missing: by name where it is little, else how much there is."""
    missing = [name for name in wanted if name not in there]
    if 0 < len(missing) <= SHOWN:
        yield f"without {named}{listed(missing, 'and')}"
    elif missing:
        found = len(wanted) - len(missing)
        yield f"{f'only {found}' if found else 'none'} of the {len(wanted)} {what} of the claim"


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")

"""Tables: one tidy row a run, their summary over seeds, and the bins of the reliability diagrams."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd

from hiddencost.files import atomic, canonical, read_json
from hiddencost.results import cells
from hiddencost.results.intervals import paired_interval
from hiddencost.runs.metrics import METRICS, batch_columns
from hiddencost.runs.packfile import AXES, stored_request
from hiddencost.study.recipes import recipe_of_run

CELL = [  # what a run is, but for its seed
    *("study", "checkpoint", "backbone", "dense", "recipe_dense", "compression", "control"),
    *("sparsity_declared", "sparsity_measured"),
    *("dataset", "method", "shots"),
]
COUNTERPARTS = ["dense", "recipe_dense"]  # of a backbone: with whom it is compared
OF_STUDY = [*COUNTERPARTS, "network", "upstream_seed"]  # of a backbone: what the study makes of it, not a pack
BIN_COLUMNS = ["bin_count", "bin_confidence", "bin_accuracy"]
TEXTS = [  # columns of any table that are no numbers
    *CELL[:7],
    *CELL[9:],
    *("status", "reason", "device", "precision", "python", "torch", "torchvision", "timm", "recipe", "run"),
    *("claim", "text", "compares", "bound", "verdict", "note", "relation", "source", "same_as", "network"),
    *("published_epoch", "ours_epoch", "measure", "over", "unit"),
]


@dataclass(frozen=True)
class CollectedStudy:
    """The grid of a study whose packs are collected.

    Attributes:
        study: its name.
        grid: its values of each of `AXES`.
        methods: names of those of each backbone, by its name.
        backbones: by name, `OF_STUDY` (`dense`, the name of the one that it is compared with; see `Study.declared`),
            and what rows without a pack say of it.
        left_out: by `backbone` and `dataset`, the names of those without packs, and why: their rows are not run.
        expectations: published accuracies, see `against_published`.
        splits: path of the images that were drawn, with {dataset} and {seed}.
        test_labels: paths of the arrays of the test images' labels, by dataset.
        so_far: where the study may still be running, the paths of the packs that there are, with their time stamps:
            what they do not hold is not run, either; None where it has ended.
    """

    study: str
    grid: Mapping[str, list]
    methods: Mapping[str, list[str]]
    backbones: Mapping[str, dict]
    left_out: Mapping[str, Mapping[str, str]]
    expectations: list[dict]
    splits: str
    test_labels: Mapping[str, str]
    so_far: Mapping[str, int] | None = None


def run_columns() -> list[str]:
    """Return the columns of the table of runs; `recipe`: as the run's pack states by what it was trained, JSON."""
    return [
        *CELL,
        *OF_STUDY[len(COUNTERPARTS) :],
        *("seed", "status", "reason", "canvas", "n_train", "classes", "classes_short", "n_test", "n_test_fewest"),
        *METRICS,
        *batch_columns().values(),
        *("train_seconds", "images_per_second", "device", "precision"),
        *("python", "torch", "torchvision", "timm", "recipe", "run"),
    ]


def paired_metrics() -> list[str]:
    """Return the metrics, by name, of which tables hold what compression costs: differences paired by seed."""
    return [name for name, metric in METRICS.items() if metric.paired]


def collect(packs: Iterable[str | Path], study: CollectedStudy) -> pd.DataFrame:
    """Read the packs' tables.

    Args:
        packs: paths of the tables. Runs that one still holds from an earlier grid are left out.
        study: the grid.

    Returns:
        A row a run of the grid, in its order: `run_columns` and `BIN_COLUMNS`. `classes` is the dataset's
        number of classes, `classes_short` of how many there are fewer training images than the run's shots, so that
        they gave all; both empty where no images were drawn. `n_test_fewest`: the test images of the class that has
        the fewest; empty where there is no array of labels.

    Raises:
        ValueError: if a run of the grid is missing or there twice.
    """
    parts = [_read_pack(Path(pack)) for pack in packs]
    in_packs = {tuple(map(_text, run)) for part in parts for run in part[AXES].itertuples(index=False)}
    absent = _left_out(study, in_packs)
    runs = pd.concat(parts + ([absent] if len(absent) else []), ignore_index=True)
    for column in OF_STUDY:
        runs[column] = runs["backbone"].map({name: stated[column] for name, stated in study.backbones.items()})
    wanted = pd.MultiIndex.from_tuples([tuple(map(_text, run)) for run in _runs(study)], names=AXES)
    index = pd.MultiIndex.from_frame(runs[AXES].map(_text))
    if len(absent := wanted.difference(index)):
        raise ValueError(f"{len(absent)} runs of the grid are in no pack, first: {absent[0]}")
    runs.index = index
    if (runs := runs.loc[wanted]).index.has_duplicates:
        raise ValueError(f"runs stand in more than one pack, first: {runs.index[runs.index.duplicated()][0]}")
    runs = runs.reset_index(drop=True)
    # of these alone: a pack may hold methods that nobody knows any more
    runs[["classes", "classes_short"]] = _classes(runs, study.splits)
    fewest = {name: _fewest(path) for name, path in study.test_labels.items()}
    runs["n_test_fewest"] = runs["dataset"].map(fewest).astype(float)
    runs = runs.reindex(columns=run_columns() + BIN_COLUMNS)
    # of a backbone, not of a run: what is not finished yet has it, too, as one cell is one row of the summary
    of_backbone = runs.groupby("backbone")["sparsity_measured"].transform("first")
    return runs.assign(sparsity_measured=runs["sparsity_measured"].fillna(of_backbone))


def _read_pack(path: Path) -> pd.DataFrame:
    """Return the rows of a pack; those that were run have the recipe that stands in the pack, not the study's."""
    rows, request = pd.read_parquet(path), stored_request(path)
    if request:
        of_shots = {shots: canonical(recipe_of_run(request.recipe, shots)) for shots in rows["shots"].unique()}
        rows["recipe"] = None
        rows.loc[rows["status"] != "not run", "recipe"] = rows["shots"].map(of_shots)
    # a column of nothing but None is none of numbers
    return rows.astype(dict.fromkeys(METRICS.keys() & set(rows), float))


def _classes(runs: pd.DataFrame, splits: str) -> pd.DataFrame:
    """Return the columns `classes` and `classes_short`, by the images that were drawn for each run."""

    @cache
    def images_of(dataset: str, seed: int) -> list[int] | None:
        path = Path(splits.format(dataset=dataset, seed=seed))
        return [len(of_class) for of_class in read_json(path)["permutations"]] if path.exists() else None

    @cache
    def counts(dataset: str, seed: int, shots: str) -> tuple[int | None, int | None]:
        images = images_of(dataset, seed)
        if images is None:
            return None, None
        return len(images), 0 if shots == "full" else sum(count < int(shots) for count in images)

    of_runs = [counts(*run) for run in runs[["dataset", "seed", "shots"]].itertuples(index=False, name=None)]
    columns = pd.DataFrame(of_runs, index=runs.index, columns=["classes", "classes_short"], dtype=float)
    return columns.assign(classes_short=columns["classes_short"].where(cells.trains(runs), 0.0))


def _fewest(labels: str) -> int | None:
    """Return the number of images of the smallest class, of those that have any."""
    if not Path(labels).exists():
        return None
    counts = np.bincount(np.load(labels))
    return int(counts[counts > 0].min()) if counts.any() else None


def _left_out(study: CollectedStudy, in_packs: set[tuple[str, ...]]) -> pd.DataFrame:
    """Return a row, not run, for each run of what is left out and, of a study so far, for what is not `in_packs`."""
    rows = []
    for values in _runs(study):
        run = dict(zip(AXES, values, strict=True))
        reasons = [study.left_out[axis].get(run[axis]) for axis in ("backbone", "dataset")]
        if study.so_far is not None and tuple(map(_text, values)) not in in_packs:
            reasons.append("not finished yet")
        if reason := next(filter(None, reasons), None):
            stated = study.backbones[run["backbone"]] | {"study": study.study}
            rows.append(stated | run | {"shots": str(run["shots"]), "status": "not run", "reason": reason})
    return pd.DataFrame(rows)


def _runs(study: CollectedStudy) -> Iterator[tuple]:
    """Yield the runs of a study's grid, as values of `AXES`: those methods that there are for a backbone."""
    runs = product(*(study.grid[axis] for axis in AXES))
    return (run for run in runs if run[AXES.index("method")] in study.methods[run[AXES.index("backbone")]])


def _text(value: object) -> str:
    return str(value)


def summarise(runs: pd.DataFrame) -> pd.DataFrame:
    """Summarise finished runs over seeds.

    Args:
        runs: as `collect` returns them.

    Returns:
        A row a cell (backbone, dataset, method, shots): `{metric}_mean` and `_std` (n - 1) for each metric, `seeds`
        (their number; one of a method that does not train), `classes` and `classes_short` (the most of a seed),
        `same_as` (the smaller number of shots whose runs these are, of every seed, as it has all images already: what
        counts cells leaves them out, see `cells.distinct`), and the difference dense minus backbone of the
        `paired_metrics`
        (`..._mean`, `_std`, `_low` and `_high`, see `paired_interval`, and `paired_seeds`). The dense backbone is the
        one that the column `dense` names; where there is none the difference is empty. The same with the dense
        network of the same training recipe: `{metric}_recipe_dense_minus_backbone_...`, `recipe_paired_seeds`.
    """
    runs = cells.one_seed(runs.assign(same_as=cells.same_as(runs)))
    of_cells = runs.groupby(CELL, dropna=False, sort=False)
    summary = of_cells[list(METRICS)].agg(["mean", "std"])
    summary.columns = [f"{metric}_{statistic}" for metric, statistic in summary.columns]
    summary.insert(0, "seeds", of_cells["accuracy"].count())
    summary.insert(1, "classes", of_cells["classes"].max())
    summary.insert(2, "classes_short", of_cells["classes_short"].max())
    summary.insert(3, "same_as", cells.copies(of_cells["same_as"]))
    for counterpart in COUNTERPARTS:
        summary = summary.join(_differences(runs, counterpart))
    return summary.reset_index()


def _differences(runs: pd.DataFrame, counterpart: str) -> pd.DataFrame:
    """Return by cell what `summarise` tells of the differences between a counterpart and the backbone."""
    pair = [counterpart, "dataset", "method", "shots", "seed"]
    dense = runs.drop(columns=counterpart).rename(columns={"backbone": counterpart})[[*pair, *paired_metrics()]]
    paired = runs.merge(dense, on=pair, how="left", suffixes=("", "_dense"))
    found: dict[str, pd.Series] = {}
    for metric in paired_metrics():
        name = f"{metric}_{counterpart}_minus_backbone"
        paired[name] = paired[f"{metric}_dense"] - paired[metric]
        of_cells = paired.groupby(CELL, dropna=False, sort=False)[name]
        mean, std, count = of_cells.mean(), of_cells.std(), of_cells.count()
        low, high = paired_interval(mean, std, count, of_cells.skew())
        found |= {f"{name}_mean": mean, f"{name}_std": std, f"{name}_low": low, f"{name}_high": high}
        if metric == "accuracy":  # others may have none of a run: of few test images no temperature is fitted
            found[counterpart.replace("dense", "paired_seeds")] = count
    return pd.DataFrame(found)


def against_published(summary: pd.DataFrame, expectations: list[dict]) -> pd.DataFrame:
    """Set published accuracies beside ours.

    Args:
        summary: as `summarise` returns it.
        expectations: each its backbone, dataset, method, shots, accuracy and std (%), epoch, and source.

    Returns:
        A row an expectation: `published`, `published_std`, `published_epoch`, of which epoch it is (such as "best on
        test", by which it may be the higher; empty: not known), `ours`, `ours_std` (%), of the last epoch, as
        `ours_epoch` says, `seeds`, `classes_short` (see `summarise`), and `difference`, ours minus published, in
        points; ours is empty where there is no result.
    """
    columns = ["backbone", "dataset", "method", "shots", "accuracy", "std", "epoch", "source"]
    expected = pd.DataFrame(expectations, columns=columns).astype({"shots": str})
    ours = summary[[*columns[:4], "seeds", "classes_short", "accuracy_mean", "accuracy_std"]]
    table = expected.merge(ours, on=columns[:4], how="left")
    table = table.rename(columns={"accuracy": "published", "std": "published_std", "epoch": "published_epoch"})
    table["ours_epoch"] = "last"
    table["ours"], table["ours_std"] = 100 * table.pop("accuracy_mean"), 100 * table.pop("accuracy_std")
    table["difference"] = table["ours"] - table["published"]
    of_either = ["published", "published_std", "published_epoch", "ours", "ours_std", "ours_epoch"]
    return table[[*columns[:4], *of_either, "seeds", "classes_short", "difference", "source"]]


def bins(runs: pd.DataFrame) -> pd.DataFrame:
    """Return the reliability bins of finished runs.

    Args:
        runs: as `collect` returns them.

    Returns:
        A row a run and bin: `bin` 1 to 15, its `count` of images, and their mean `confidence` and `accuracy`.
    """
    long = runs.loc[runs["status"] == "ok", [*AXES, *BIN_COLUMNS]].explode(BIN_COLUMNS)
    long.insert(len(AXES), "bin", long.groupby(level=0).cumcount() + 1)
    long.columns = [column.removeprefix("bin_") for column in long.columns]
    numbers = ["count", "confidence", "accuracy"]
    return long.astype(dict.fromkeys(numbers, float)).astype({"count": int}).reset_index(drop=True)


def pool(bins: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Pool the bins of several runs.

    Args:
        bins: as `bins` returns them.
        by: the columns whose values stay apart.

    Returns:
        A row a value of these columns and bin that has images: `count`s add up, `confidence` and `accuracy` are means
        over images, and `share` is that of the images.
    """
    bins = bins[bins["count"] > 0]
    means = ["confidence", "accuracy"]
    weighted = bins.assign(**{name: bins[name] * bins["count"] for name in means})
    pooled = weighted.groupby([*by, "bin"])[["count", *means]].sum()
    pooled[means] = pooled[means].div(pooled["count"], axis=0)
    pooled["share"] = pooled["count"] / pooled.groupby(by)["count"].transform("sum")
    return pooled.reset_index()


def read(path: str | Path) -> pd.DataFrame:
    """Read a table that `write` wrote; in a .csv, too, names stay texts, such as 2024 or nan."""
    if Path(path).suffix == ".csv":
        return pd.read_csv(path, dtype=dict.fromkeys(TEXTS, str), keep_default_na=False, na_values=[""])
    return pd.read_parquet(path)


def write(table: pd.DataFrame, path: str | Path) -> None:
    """Write a table as its name says: .csv, numbers to six digits, or .parquet."""
    with atomic(path) as temporary:
        if temporary.suffix == ".csv":
            table.to_csv(temporary, index=False, float_format="%.6g")
        else:
            table.to_parquet(temporary, index=False)


def conclude(runs: pd.DataFrame, verdicts: str, report: str | Path) -> tuple[str, bool]:
    """Say what came of a study and where it is.

    Args:
        runs: as `collect` returns them.
        verdicts: how often each was given to a claim, see `verdicts.count`.
        report: beside which tables and figures are.

    Returns:
        A few lines, and whether every run has a result.
    """
    lines = []
    failed = runs[runs["status"] != "ok"]
    for (backbone, status, reason), group in failed.groupby(["backbone", "status", "reason"], sort=False):
        lines.append(f"{backbone}: {len(group)} runs {status}: {reason}")
    report = Path(report)
    lines += [
        f"{len(runs) - len(failed)} of {len(runs)} runs of study {runs['study'].iloc[0]} have a result.",
        f"claims:  {verdicts} ({report.parent / 'tables/claims.csv'})",
        f"report:  {report}",
        f"tables:  {report.parent / 'tables'}/",
        f"figures: {report.parent / 'figures'}/",
    ]
    return "\n".join(lines) + "\n", failed.empty

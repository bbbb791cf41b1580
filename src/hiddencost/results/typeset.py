"""Tables for print: accuracy and calibration of every backbone, as Markdown and LaTeX, and their numbers as CSV.

And of each backbone and method the means over data sets, with what compression costs and its interval.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from pandas.io.formats.style import Styler

from hiddencost.files import atomic
from hiddencost.results import tables
from hiddencost.results.cells import SHORT, copies, one_seed, same_as
from hiddencost.results.intervals import paired_interval
from hiddencost.results.means import EVERY, means
from hiddencost.runs.metrics import METRICS

COLUMN = ["shots", "dataset", "method"]  # within one, backbones are compared
WIDTH = 8  # columns of numbers that fit a printed page
MEANS = "means"  # the name of that table
# all that captions and names can have
LATEX = str.maketrans({"%": "\\%", "_": "\\_", "±": "$\\pm$", "–": "--", "−": "$-$", SHORT: "$^\\dagger$"})


def write(runs: str | Path, paths: Iterable[str | Path]) -> None:
    """Write the tables for print.

    Args:
        runs: path of the study's table.
        paths: of what is written: a metric's table, by the name of which the file is called, or the `MEANS`, as
            .csv, .md or .tex (booktabs).
    """
    table = pd.read_parquet(runs)
    files = list(map(Path, paths))
    numbers = {name: means(table) if name == MEANS else cells(table, name) for name in {path.stem for path in files}}
    for path in files:
        if path.suffix == ".csv":
            tables.write(numbers[path.stem], path)
            continue
        if path.stem == MEANS:
            text = {".md": means_markdown, ".tex": means_latex}[path.suffix](numbers[MEANS], means_caption(table))
        else:
            text = {".md": markdown, ".tex": latex}[path.suffix](numbers[path.stem], caption(table, path.stem))
        with atomic(path) as temporary:
            temporary.write_text(text)


def cells(runs: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return the numbers of a metric, and which are the best.

    Best of a column (shots, dataset, method) is the backbone of the highest mean accuracy or lowest mean ECE, of
    those with the most seeds of the column (a mean of fewer is not comparable). With it are all that have three or
    more seeds in common with it and are not known to be worse: no 95 % paired interval (a two-sided paired t test at
    5 %) lies on the worse side. Of two seeds the test finds hardly anything worse. Controls are never best: at chance
    a network that never learned can be calibrated well. Nor is one best that stands beside controls alone.

    Args:
        runs: the study's table.
        metric: a name of `METRICS`.

    Returns:
        A row a cell of the grid: `shots`, `dataset`, `method`, `backbone`; `mean` and `std` (n - 1) over seeds, as
        they are shown (`Metric.factor`); `seeds`, their number (one of a method that does not train); `best`, whether
        it is set in bold; `classes_short`, how many classes have fewer images than its shots, at most; `same_as`, the
        smaller number of shots that has the same images, so that both are one training.
    """
    runs = one_seed(runs)
    runs = runs.assign(value=METRICS[metric].factor * runs[metric].where(runs["status"] == "ok"))
    values = (
        runs[runs["control"].isna()]
        .pivot(index=[*COLUMN, "seed"], columns="backbone", values="value")
        .dropna(how="all")
    )
    values = values if METRICS[metric].higher_is_better else -values  # the more the better
    columns = values.groupby(COLUMN)
    highest = columns.mean().where(columns.count().eq(columns.count().max(axis=1), axis=0))
    of_best = values.columns.get_indexer(highest.idxmax(axis=1).loc[values.index.droplevel("seed")])
    ahead = values.sub(values.to_numpy()[range(len(values)), of_best], axis=0).groupby(COLUMN)
    _, high = paired_interval(ahead.mean(), ahead.std(), ahead.count())
    as_good = highest.eq(highest.max(axis=1), axis=0) | (ahead.count() > 2) & ~(high < 0)
    as_good &= pd.DataFrame(dict.fromkeys(as_good, columns.count().gt(0).sum(axis=1) > 1))
    table = runs.groupby([*COLUMN, "backbone"], sort=False)["value"].agg(["mean", "std", "count"])
    table["best"] = as_good.stack().reindex(table.index, fill_value=False)
    table["classes_short"] = runs.groupby([*COLUMN, "backbone"], sort=False)["classes_short"].max()
    of_each = runs.assign(same_as=same_as(runs)).groupby([*COLUMN, "backbone"], sort=False)["same_as"]
    table["same_as"] = copies(of_each)
    return table.rename(columns={"count": "seeds"}).reset_index()


def caption(runs: pd.DataFrame, metric: str) -> str:
    """Say what a table of the study shows."""
    seeds, any_short = runs["seed"].nunique(), (runs["classes_short"] > 0).any()
    shown = METRICS[metric]
    unit = "%" if shown.percent else shown.unit
    title = (shown.title or shown.label) + (f" in {unit}" if unit else "")
    over = f"mean ± standard deviation over {seeds} seeds" if seeds > 1 else "of one seed"
    return (
        f"{title}, {over}, study {runs['study'].iloc[0]}. Bold: of two or more backbones in a column, at one "
        "number of shots, the best mean (of those with the most seeds, and of no control), and those that have three "
        "or more seeds in common with it and that a paired t test (two-sided, 5 %, not corrected for the number of "
        "tests) does not find worse. –: no result."
        + (f" {SHORT}: some classes have fewer images than that, and gave all." if any_short else "")
        + (
            " = n: as at n shots, which have all images, or whose number changes nothing."
            if same_as(runs).notna().any()
            else ""
        )
    )


def markdown(numbers: pd.DataFrame, caption: str) -> str:
    """Set the numbers of `cells` as Markdown: a table for each number of shots and group of datasets."""
    parts = [caption]
    for group in _groups(numbers):
        for shots, block in _text(group, "**{}**", "±", "–", SHORT).groupby(level="shots", sort=False):
            block = block.droplevel("shots")
            block.columns = [" ".join(column) for column in block.columns]
            parts += [f"## {shots_label(shots)}", block.to_markdown(disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def latex(numbers: pd.DataFrame, caption: str) -> str:
    """Set the numbers of `cells` as LaTeX: a longtable a group of datasets, in it a block each number of shots."""
    parts = ["% \\usepackage{booktabs, longtable}", "{\\scriptsize\\setlength{\\tabcolsep}{3pt}"]
    for group in _groups(numbers):
        text = _text(group, "\\textbf{{{}}}", "$\\pm$", "--", SHORT.translate(LATEX))
        text.index = text.index.set_levels([shots_label(shots) for shots in text.index.levels[0]], level="shots")
        style = Styler(text).format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
        table = style.to_latex(
            environment="longtable",
            hrules=True,
            clines="skip-last;data",
            multirow_align="naive",
            multicol_align="c",
            column_format="ll" + "r" * text.shape[1],
            caption=caption.translate(LATEX),
        )
        *blocks, end = table.split("\\cline")  # after the last block there is the bottom rule
        parts.append("\\cmidrule".join(blocks) + end.partition("\n")[2])
    return "\n".join([*parts, "}"]) + "\n"


def means_caption(runs: pd.DataFrame) -> str:
    """Say what the table of means shows."""
    return (
        f"Test accuracy in % and what each method costs against the dense network, in points, "
        f"study {runs['study'].iloc[0]}. Means over data sets; of the cost in brackets the 95 % interval, over "
        f"{'data sets and seeds' if runs['dataset'].nunique() > 1 else 'seeds of the data set'} (see the claims). "
        "*: cells are missing. –: no result, or nothing to compare with."
    )


def means_markdown(numbers: pd.DataFrame, caption: str) -> str:
    """Set what `means.means` returns as Markdown: a table for each number of shots."""
    parts = [caption]
    for title, text in _means_text(numbers, "–"):
        text.columns = [" ".join(column) for column in text.columns]
        parts += [f"## {title}", text.to_markdown(disable_numparse=True)]
    return "\n\n".join(parts) + "\n"


def means_latex(numbers: pd.DataFrame, caption: str) -> str:
    """Set what `means.means` returns as LaTeX: a tabular for each number of shots."""
    parts = ["% \\usepackage{booktabs}"]
    for title, text in _means_text(numbers, "--"):
        style = Styler(text).format_index(escape="latex", axis=0).format_index(escape="latex", axis=1)
        style = style.format(lambda value: value.translate(LATEX))
        layout = {"hrules": True, "multicol_align": "c", "column_format": "l" + "r" * text.shape[1]}
        parts.append(style.to_latex(**layout, position="t", caption=f"{caption.translate(LATEX)} Here: {title}."))
    return "\n".join(parts)


def _means_text(numbers: pd.DataFrame, missing: str) -> Iterator[tuple[str, pd.DataFrame]]:
    """Yield a title and the means as text, of each number of shots and as many methods as fit a printed page."""

    def cost(mean: float, low: float, high: float) -> str:
        if np.isnan(mean):
            return missing
        text = f"{mean:z.1f}"  # zero has no sign
        return (text if np.isnan(low) else f"{text} [{low:z.1f}, {high:z.1f}]").replace("-", "−")

    def accuracy(mean: float, absent: int) -> str:
        return missing if np.isnan(mean) else f"{mean:.1f}" + ("*" if absent else "")

    numbers = numbers.assign(
        accuracy=[accuracy(*row) for row in numbers[["accuracy", "missing"]].itertuples(index=False)],
        cost=[cost(*row) for row in numbers[["cost", "low", "high"]].itertuples(index=False)],
        method=numbers["method"].str.upper(),
    )
    for shots, of_shots in numbers.groupby("shots", sort=False):
        methods = of_shots["method"].unique()
        for part in np.array_split(methods, -(-len(methods) // (WIDTH // 2))):
            text = of_shots.set_index(["backbone", "method"])[["accuracy", "cost"]].unstack("method")
            text = text.swaplevel(axis=1).reindex(
                index=of_shots["backbone"].unique(), columns=pd.MultiIndex.from_product([part, ["accuracy", "cost"]])
            )
            yield "every number of shots" if shots == EVERY else shots_label(shots), text.fillna(missing)


def shots_label(shots: str) -> str:
    """Name a number of shots: "1 shot", "20 shots", "full"."""
    return shots if shots == "full" else f"{shots} shot{'' if shots == '1' else 's'}"


def _groups(numbers: pd.DataFrame) -> Iterator[pd.DataFrame]:
    """Yield the numbers of as many datasets at a time as fit a printed page; of more methods than do, of a part."""
    datasets, methods = numbers["dataset"].unique(), numbers["method"].unique()
    parts = np.array_split(methods, -(-len(methods) // WIDTH))
    step = max(1, WIDTH // len(parts[0]))
    for start in range(0, len(datasets), step):
        group = numbers[numbers["dataset"].isin(datasets[start : start + step])]
        yield from (group[group["method"].isin(part)] for part in parts)


def _text(numbers: pd.DataFrame, bold: str, sign: str, missing: str, short: str) -> pd.DataFrame:
    """Return the numbers as text: a row a number of shots and backbone, a column a dataset and method."""

    def cell(mean: float, std: float, seeds: int, best: bool, classes_short: float, same: str | None) -> str:
        if not seeds:
            return missing
        if isinstance(same, str):
            return f"= {same}"
        text = f"{mean:.1f}" + (f" {sign} {std:.1f}" if seeds > 1 else "")
        return (bold.format(text) if best else text) + (short if classes_short > 0 else "")

    shown = ["mean", "std", "seeds", "best", "classes_short", "same_as"]
    texts = [cell(*row) for row in numbers[shown].itertuples(index=False)]
    numbers = numbers.assign(text=texts, method=numbers["method"].str.upper())
    rows, columns = ["shots", "backbone"], ["dataset", "method"]
    index, header = (
        pd.MultiIndex.from_product([numbers[axis].unique() for axis in axes], names=axes) for axes in (rows, columns)
    )
    text = numbers.pivot(index=rows, columns=columns, values="text").reindex(index=index, columns=header)
    return text.fillna(missing)

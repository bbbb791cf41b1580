"""docs/tables.md describes each column of each table, and none that there is not."""

import re

import pandas as pd
import pytest
from conftest import ROOT

from hiddencost.jobs.results import printed_metrics
from hiddencost.results import latency, learned, matched, means, shift, split, tables, typeset, verdicts, why
from hiddencost.runs.metrics import METRICS
from hiddencost.runs.packfile import AXES
from hiddencost.runs.sides import COST, SPLIT, SWAPS

SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)+)", (ROOT / "docs/tables.md").read_text(), re.MULTILINE))
# columns that are described together
ENDS = [f"{name}{end}" for name in (COST, *SPLIT) for end in ("_low", "_high")]
PATTERNS = {"accuracy_NETWORK_PROMPT_MAPPING": SWAPS, "..._low": ENDS[::2], "..._high": ENDS[1::2]}
PATTERNS |= {f"{kind}_...": [name for name in SPLIT if name.startswith(kind)] for kind in ("part", "gain", "loss")}
SHARED, OF_METRICS = "What a run or a cell is of", {"METRIC": list(METRICS), "PAIRED": tables.paired_metrics()}


def described(section):
    """The columns that a section describes: of a name in capitals, one a metric."""
    columns = []
    for first, what in re.findall(r"^\| (.+?) \|(.*)\|$", SECTIONS[section], re.MULTILINE):
        assert what.strip() or first.startswith("all "), f"{first} is not described"
        columns += described(SHARED) if first.startswith("all ") else []
        for name in re.findall("`(.+?)`", first):
            word = re.match("[A-Z]+_|", name)[0]
            columns += (
                [name.replace(word, f"{metric}_") for metric in OF_METRICS[word[:-1]]]
                if word
                else PATTERNS.get(name, [name])
            )
    return columns


@pytest.fixture(scope="module")
def columns():
    """The columns of each table, by its section."""
    told = {"backbone": "dense", "dense": "dense", "checkpoint": "resnet50-v1", "compression": "none", "status": "ok"}
    told |= {"study": "s", "recipe_dense": "dense", "dataset": "dtd", "method": "ilm", "shots": "1", "run": "r"}
    runs = pd.DataFrame([told | {"seed": 0, "accuracy": 0.5}]).reindex(columns=tables.run_columns())
    summary = tables.summarise(runs)
    expected = dict.fromkeys(["backbone", "dataset", "method", "shots", "accuracy", "std", "epoch", "source"])
    bins = pd.DataFrame(columns=[*AXES, "status", *tables.BIN_COLUMNS])
    return {
        SHARED: tables.CELL,
        "runs.csv, runs.parquet": tables.run_columns(),
        "summary.csv": summary,
        "claims.csv": verdicts.judge(runs, {}),
        "matched.csv": matched.COLUMNS,
        "expectations.csv": tables.against_published(summary, [expected]),
        ", ".join(f"{metric}.csv" for metric in printed_metrics()): typeset.cells(runs, "accuracy"),
        "means.csv": means.COLUMNS,
        "bins.parquet": tables.bins(bins),
        "mappings.parquet": learned.MAPPINGS,
        "remapped.parquet": learned.REMAPPED,
        "swaps.parquet": (swaps := split.of_study([], runs)),
        "split.csv": split.of_cells(swaps),
        "measures.parquet": (measures := why.of_study([], runs)),
        "why.csv": why.correlations(measures, runs),
        "upstream.csv": learned.upstream({}),
        "latency.csv": latency.COLUMNS,
        "shift.csv": shift.COLUMNS,
        "shift_cost.csv": shift.COST_COLUMNS,
    }


def test_each_table_has_its_section(columns):
    assert SECTIONS.keys() == columns.keys()


@pytest.mark.parametrize("section", SECTIONS)
def test_each_column_is_described_and_no_other(section, columns):
    assert sorted(described(section)) == sorted(columns[section])

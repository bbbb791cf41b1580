"""Why compression costs, and whose the cost is: measures, swaps, what tables and claims say of them, and figures."""

import shutil
from itertools import permutations, product
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import in_process
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import copy_project
from stubbed_project import configure, planned, replace, snakemake

from hiddencost.figures import bars, style
from hiddencost.figures.registry import FIGURES
from hiddencost.messages import StudyError, validate
from hiddencost.methods.registry import METHODS
from hiddencost.prompting.prompts import shape_of
from hiddencost.results import split, tables, verdicts, why
from hiddencost.results.analyses import ANALYSES
from hiddencost.results.claims import Cells, Claim
from hiddencost.results.gallery import ShownBackbone, StudyFigure
from hiddencost.runs import pairs
from hiddencost.runs.measured import drawn_at
from hiddencost.runs.measures import MEASURES, Answers, unbiased_hsic
from hiddencost.runs.packfile import AXES
from hiddencost.runs.sides import OWN, SIDES, SPLIT, SWAPS, accuracy_of
from hiddencost.study import analyses


def answers(**given):
    """Answers on four images of two classes, of a network of four source classes."""
    made = {"features": np.eye(4), "first": [0, 1, 2, 3], "predicted": [0, 0, 1, 1], "labels": [0, 0, 1, 1]}
    made |= {"logits": [[2.0, 0], [1, 0], [0, 3], [5, 1]], "gradient": [3.0, 4.0], "mapping": [0, 1]}
    made |= {"of_seeds": [[0, 1], [0, 2]], "of_epochs": [[0, 1], [0, 1], [2, 1]]}
    return Answers(**{name: np.array(value) for name, value in (made | given).items()})


def measured(name, own, dense=None):
    return MEASURES[name].values(own, dense or own)[0]


def noise(count, width, seed=0):
    return np.random.default_rng(seed).normal(size=(count, width))


def test_hsic_is_that_of_kernel_matrices():
    x, y = noise(9, 3), noise(9, 5, 1) + 7
    k, l = x @ x.T, y @ y.T  # noqa: E741
    np.fill_diagonal(k, 0)
    np.fill_diagonal(l, 0)
    n, one = 9, np.ones(9)
    expected = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2))
    expected -= 2 / (n - 2) * (one @ k @ l @ one)
    assert unbiased_hsic(x, y) == pytest.approx(expected / (n * (n - 3)))


def test_cka_is_1_of_what_is_turned_scaled_and_moved_and_0_of_what_is_independent():
    x = noise(400, 6)
    turned, _ = np.linalg.qr(noise(6, 6, 1))
    cka = MEASURES["cka"].of_two
    assert cka(answers(features=3 * x @ turned + 5), answers(features=x)) == pytest.approx(1)
    assert abs(cka(answers(features=noise(400, 6, 2)), answers(features=x))) < 0.02
    # fewer images than features: the biased estimate would be 0.7 here
    assert abs(np.mean([cka(*(answers(features=noise(20, 50, s)) for s in (a, a + 99))) for a in range(30)])) < 0.03
    assert cka(answers(features=np.ones((4, 2))), answers()) is None
    assert cka(answers(features=x[:3]), answers(features=x[:3])) is None


def test_ranks_are_those_of_known_spectra():
    basis, _ = np.linalg.qr(noise(40, 8) - noise(40, 8).mean(0))  # columns that sum to 0
    assert measured("effective_rank", answers(features=5 + 3 * basis)) == pytest.approx(8)
    assert measured("effective_rank", answers(features=basis * [1, 1, 0, 0, 0, 0, 0, 0])) == pytest.approx(2)
    shares = np.array([0.5, 0.25, 0.25, 0, 0, 0, 0, 0])
    expected = 2 ** (0.5 * 1 + 0.5 * 2)
    assert measured("effective_rank", answers(features=basis * shares)) == pytest.approx(expected)
    assert measured("effective_rank", answers(features=np.ones((5, 3)))) is None
    x = np.float32(noise(30, 4) @ noise(4, 9))
    assert measured("numerical_rank", answers(features=x)) == np.linalg.matrix_rank(x - x.mean(0)) == 4
    assert measured("numerical_rank", answers(features=np.float32(noise(5, 60)))) == 4  # of five centred images


def test_what_is_said_of_source_classes_and_mappings():
    one = answers()
    assert measured("agreement", answers(first=[0, 1, 0, 0]), one) == 0.5
    assert measured("source_entropy", one) == pytest.approx(np.log(2))
    assert measured("effective_classes", one) == pytest.approx(2)
    assert measured("effective_classes", answers(predicted=[7, 7, 7, 7])) == pytest.approx(1)
    assert measured("stability_over_seeds", one) == 0.75
    assert measured("stability_over_epochs", one) == 0.75
    assert measured("stability_over_seeds", answers(of_seeds=[])) is None
    assert measured("stability_over_epochs", answers(of_epochs=[[0, 1]])) is None


@pytest.mark.parametrize(
    ("method", "interval", "rows"),
    [("rlm", 1, 1), ("flm", 2, 1), ("flm-opt", 1, 1), ("ilm", 1, 5), ("ilm", 2, 3), ("blm", 3, 2), ("fm", 2, 5)],
)
def test_mappings_of_epochs_are_those_that_were_drawn_anew_or_learned(method, interval, rows):
    """The ledger has one of each epoch, also of a mapping that is drawn once: its stability is no number."""
    found = drawn_at(METHODS[method], torch.arange(10).reshape(5, 2), interval)
    assert found[:, 0].tolist() == list(range(0, 10, 2 if METHODS[method].learns_mapping else 2 * interval))[:rows]


@pytest.mark.parametrize(("shape", "is_swapped"), [("border", True), ("masks", False), ("additive", False)])
def test_prompts_behind_another_normalisation_are_not_swapped(shape, is_swapped, monkeypatch, caplog):
    of = {"source_classes": 8, "prompt": shape_of(shape), "std": torch.ones(3)}
    networks = {
        side: SimpleNamespace(mean=torch.tensor([0.5, 0.5, 0.1 * place]), **of) for place, side in enumerate(SIDES)
    }
    monkeypatch.setattr(pairs, "Adapted", lambda side, *_: SimpleNamespace(prompted=networks[side]))
    inputs = SimpleNamespace(folders={side: side for side in SIDES}, packs=dict.fromkeys(SIDES), texts={})
    assert (pairs.comparable(inputs, None, swaps=True) is not None) == is_swapped
    assert ("none is swapped" in caplog.text) != is_swapped
    assert pairs.comparable(inputs, None, swaps=False)


def test_what_is_said_of_logits_and_gradients():
    one = answers()
    assert measured("margin", one) == (2 + 1 + 3 - 4) / 4
    assert measured("gradient_norm", one) == 5
    confidence = 1 / (1 + np.exp([-2.0, -1, -3, -4]))  # the last image is taken for the other class
    bins = np.ceil(confidence * 15)
    gaps = [sum(confidence[bins == one] - [1, 1, 1, 0] @ np.diag(bins == one)[:, bins == one]) for one in set(bins)]
    assert measured("ece", one) == pytest.approx(sum(map(abs, gaps)) / 4)


def accuracies(value):
    """The accuracies of swaps, as a row: a function of whose network, prompt and mapping it is."""
    return pd.DataFrame([{accuracy_of(*sides): value(*sides) for sides in product(SIDES, repeat=3)}])


def test_a_cost_that_is_all_the_mappings_is_said_to_be():
    (row,) = split.split(accuracies(lambda network, prompt, mapping: 0.3 if mapping == OWN else 0.8)).to_dict(
        "records"
    )
    expected = dict.fromkeys(SPLIT, 0) | dict.fromkeys(("gain_mapping", "gain_both", "loss_mapping", "loss_both"), 50)
    assert {name: row[name] for name in SPLIT} == pytest.approx(expected | {"part_mapping": 50})
    assert row["cost"] == pytest.approx(50)


def test_parts_are_means_over_all_orders_and_add_up():
    random = np.random.default_rng(0)
    known = {sides: random.random() for sides in product(SIDES, repeat=3)}
    (row,) = split.split(accuracies(lambda *sides: known[sides])).to_dict("records")
    changes = {0: [], 1: [], 2: []}
    for order in permutations(range(3)):
        sides = [OWN] * 3
        for part in order:
            before = known[tuple(sides)]
            sides[part] = "dense"
            changes[part].append(known[tuple(sides)] - before)
    parts = [row[f"part_{name}"] for name in ("network", "prompt", "mapping")]
    assert parts == pytest.approx([100 * np.mean(changes[part]) for part in range(3)])
    assert sum(parts) == pytest.approx(row["cost"])
    assert row["gain_both"] == pytest.approx(100 * (known["own", "dense", "dense"] - known[(OWN,) * 3]))
    assert row["loss_prompt"] == pytest.approx(100 * (known[("dense",) * 3] - known["dense", OWN, "dense"]))


def study_of(cost, datasets=("one", "two"), seeds=range(3), levels=range(1, 6)):
    """Runs of a dense network and pruned ones on some datasets: what a level costs, in points."""
    rows = []
    for dataset, seed, level in product(datasets, seeds, (0, *levels)):
        name = f"p{level}" if level else "dense"
        lost = cost(dataset, seed, level) if level else 0
        rows.append(
            {"backbone": name, "dense": "dense", "dataset": dataset, "method": "ilm", "shots": "1", "seed": seed}
            | {"compression": "magnitude" if level else "none", "control": None, "checkpoint": "resnet50-v1"}
            | {"accuracy": 0.8 - lost / 100, "status": "ok", "run": f"{name} {dataset} {seed}", "classes": 2}
            | {"n_test": 1000, "n_test_fewest": 500, "recipe": "{}", "recipe_dense": "dense"}
        )
    return pd.DataFrame(rows).reindex(columns=tables.run_columns())


def pairs_of(runs, tmp_path, **columns):
    """The file of what is found of the runs of compressed networks."""
    pruned = runs[runs["backbone"] != "dense"]
    found = pruned[[*AXES, "dense", "run"]].assign(run_dense="dense " + pruned["run"].str.split(" ", n=1).str[1])
    file = tmp_path / "pairs.parquet"
    found.assign(**{name: column(pruned) for name, column in columns.items()}).to_parquet(file)
    return [file]


def measures_of(runs, tmp_path, value):
    columns = {"measure": lambda pruned: "cka", "value": value, "value_dense": lambda pruned: None}
    return why.of_study(pairs_of(runs, tmp_path, **columns), runs)


def level_of(pruned):
    return pruned["backbone"].str[1:].astype(float)


def test_what_falls_as_the_cost_rises_has_a_rank_correlation_near_minus_1(tmp_path):
    noisy = np.random.default_rng(0).permutation(5)
    runs = study_of(lambda dataset, seed, level: level**3 + 2 * seed + 30 * (dataset == "two"))
    found = measures_of(runs, tmp_path, lambda pruned: -level_of(pruned) - 100 * (pruned["dataset"] == "one"))
    one = why.correlate(found)
    assert one.correlation == pytest.approx(-1 + 6 / (5 * 24))
    assert one.cells == 10
    assert np.isnan(one.low)  # of what does not differ there is no interval
    runs = study_of(lambda dataset, seed, level: level + 3 * (noisy[level - 1] + seed * level) % 4)
    table = why.correlations(measures_of(runs, tmp_path, level_of), runs)
    assert table["over"].tolist() == ["all", "one", "two"]
    assert (table["low"] < table["correlation"]).all()
    assert (table["correlation"] < table["high"]).all()
    assert table["unit"].tolist() == ["2 datasets, 3 seeds", *["1 dataset, 3 seeds"] * 2]


def test_ranks_are_taken_within_a_dataset_each_run_once_and_without_controls(tmp_path):
    runs = study_of(lambda dataset, seed, level: 10 * level if dataset == "one" else 40 + level)
    # between datasets it falls as the cost rises
    found = measures_of(runs, tmp_path, lambda pruned: level_of(pruned) - 50 * (pruned["dataset"] == "two"))
    assert why.correlate(found).correlation > 0.9
    again = pd.concat([found, found.assign(shots="2")])  # a budget of the same images
    assert why.correlate(again).correlation == why.correlate(found).correlation
    assert why.correlate(again).cells == 10
    controls = runs.assign(control=np.where(runs["backbone"] == "p5", "random_init", None))
    assert why.correlations(found, controls)["cells"].iloc[0] == 8
    ranked = found[(found["dataset"] == "one") | found["backbone"].isin(["p1", "p2", "p3"])]
    assert why.correlate(ranked).cells == 5  # three of the other dataset are not ranked
    few = found[found["backbone"].isin(["p1", "p2", "p3"])]
    assert np.isnan(why.correlate(few).correlation)
    assert "fewer than 4" in why.correlate(few).unit
    assert why.correlate(few).cells == 0


def claim(**more):
    return Claim(text="t", source="s", cells={"backbones": "sparse", "methods": "ilm"}, **more)


def judged(runs, one, **found):
    return verdicts.judge(runs, {"mine": one}, **found).iloc[0]


def test_a_claim_that_a_measure_goes_with_the_cost(tmp_path):
    runs = study_of(lambda dataset, seed, level: 3 * level - 4 * (seed == 1 and level == 3))
    found = measures_of(runs, tmp_path, lambda pruned: -level_of(pruned))
    of_cka = claim(measure="accuracy_lost", explained_by="cka", less_than=0)
    verdict = judged(runs, of_cka, measures=found)
    assert verdict["verdict"] == "supported"
    assert -1 < verdict["low"] < verdict["effect"] < verdict["high"] < 0
    assert verdict["note"] == "a rank correlation, over 2 datasets, 3 seeds"
    opposite = claim(measure="accuracy_lost", explained_by="cka", more_than=0)
    assert judged(runs, opposite, measures=found)["verdict"] == "contradicted"
    assert judged(runs, of_cka)["verdict"] == "not run"
    other = claim(measure="accuracy_lost", explained_by="ece", less_than=0)
    assert judged(runs, other, measures=found)["verdict"] == "not run"
    with_control = runs.assign(control=np.where(runs["backbone"] == "p5", "random_init", None))
    for cells, count in (({"methods": "ilm"}, 8), ({"backbones": ["compressed", "random_init"]}, 10)):
        verdict = judged(with_control, of_cka.model_copy(update={"cells": Cells(**cells)}), measures=found)
        assert verdict["cells"] == count


@pytest.mark.parametrize(("share", "verdict"), [(0.5, "supported"), (0.9, "contradicted")])
def test_a_claim_that_a_share_of_the_cost_is_the_mappings(tmp_path, share, verdict):
    runs = study_of(lambda dataset, seed, level: 4 * level + seed)
    lost = (0.8 - runs.loc[runs["backbone"] != "dense", "accuracy"]).to_numpy()

    def accuracy(network, prompt, mapping):  # the mapping's share is 0.7
        return lambda pruned: 0.8 - lost * (0.3 * (network == OWN) + 0.7 * (mapping == OWN))

    names = dict(zip(SWAPS, product(SIDES, repeat=3), strict=True))
    swaps = split.of_study(pairs_of(runs, tmp_path, **{name: accuracy(*one) for name, one in names.items()}), runs)
    found = judged(runs, claim(measure="part_mapping", share=share), swaps=swaps)
    assert found["verdict"] == verdict
    assert found["effect"] == pytest.approx(100 * (0.7 - share) * lost.mean())
    gained = judged(runs, claim(measure="gain_mapping", more_than=0), swaps=swaps)
    assert gained["verdict"] == "supported"
    assert gained["effect"] == pytest.approx(70 * lost.mean())
    cells = split.of_cells(swaps)
    assert (cells["cost_low"] < cells["cost"]).all()
    assert (cells["part_mapping"] < cells["part_mapping_high"]).all()
    assert len(cells) == 10
    assert set(cells["seeds"]) == {3}
    assert judged(runs, claim(measure="gain_mapping", more_than=0))["verdict"] == "not run"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"share": 0.5}, "share: accuracy_lost is no part of the cost; expected one of part_network"),
        ({"explained_by": "cka", "measure": "ece_added", "more_than": 0}, "expected the measure accuracy_lost"),
        ({"explained_by": "cca", "more_than": 0}, "'cca' is unknown; did you mean 'cka'?"),
        (
            {"explained_by": "cka", "less_than": -30},
            "less_than: of a rank correlation (explained_by); expected a number",
        ),
        ({"explained_by": "cka", "within": 0.2, "about": 5}, "about: of a rank correlation (explained_by); expected"),
    ],
)
def test_a_claim_of_an_analysis_that_makes_no_sense_is_told_in_a_line(change, message):
    with pytest.raises(StudyError) as error:
        validate(Claim, {"text": "t", "source": "s", "measure": "accuracy_lost"} | change, "claims.yaml: mine")
    (line,) = str(error.value).splitlines()
    assert message in line


def test_the_names_that_a_study_may_state_are_those_of_the_registry():
    assert analyses.ANALYSES.keys() == ANALYSES.keys()


def test_a_study_measures_its_finished_runs_and_trains_nothing(tmp_path, monkeypatch, threads):
    config = in_process.STUDY | {"analysis": ["why", "split"], "methods": ["ilm", "fm"], "shots": ["full"]}
    finished = in_process.run(config, tmp_path, monkeypatch, ["split", "why"])
    runs, swaps = finished.runs, pd.read_parquet(finished.tables["swaps"])
    assert len(swaps) == 4
    assert set(swaps["backbone"]) == {"pruned"}
    for side, run in (("own", "run"), ("dense", "run_dense")):
        of_table = swaps[run].map(runs.drop_duplicates("run").set_index("run")["accuracy"])
        assert swaps[accuracy_of(side, side, side)].to_numpy() == pytest.approx(of_table.to_numpy())
    measures = pd.read_parquet(finished.tables["measures"])
    assert len(measures) == 4 * len(MEASURES)
    assert set(measures["measure"]) == set(MEASURES)
    assert measures.loc[measures["measure"] == "ece", "value"].to_numpy() == pytest.approx(
        swaps["run"].map(runs.drop_duplicates("run").set_index("run")["ece"]).to_numpy(), abs=1e-6
    )
    assert (measures.loc[measures["measure"] == "gradient_norm", "value"] > 0).all()
    assert pd.read_csv(finished.tables["split"])["cost"].notna().all()
    for figure in finished.figures.values():
        assert figure.stat().st_size > 10_000


def drawn(kind, tables, backbones, **settings):
    """Draw a figure of two datasets by what draws it, and return it."""
    look = {"methods": ["ilm"], "labels": {}, "colours": {}, "width": 7, "panel_height": 2, "title": "made up"}
    with style.paper():
        content = StudyFigure(kind, "", backbones, ["one", "two"])
        figure = resolve_name(FIGURES[kind].drawn_by)(tables, content, look | settings)
        figure.draw_without_rendering()
    return figure


def said(figure):
    return figure.get_suptitle().replace("\n", " ")


SHOWN = {"dense": ShownBackbone("dense", 0.0, False, "dense")}
SHOWN |= {f"p{level}": ShownBackbone("compressed", level / 10, False, f"{level}0 %") for level in range(1, 6)}


def swaps_of(runs, tmp_path):
    half = {name: lambda pruned, name=name: 0.8 - 0.04 * name.count(OWN) * level_of(pruned) for name in SWAPS}
    swaps = split.of_study(pairs_of(runs, tmp_path, **half), runs)
    return swaps.assign(cost=swaps["cost"] + swaps["seed"])


def test_a_figure_of_the_split_shows_a_copied_budget_whose_original_is_not_shown(tmp_path):
    runs = study_of(lambda dataset, seed, level: 4 * level + seed)
    swaps = swaps_of(runs, tmp_path)
    tables = {"runs": runs, "swaps": pd.concat([swaps, swaps.assign(shots="2")])}  # a budget of the same images
    marks = [
        [tuple(line.get_xdata()) for axis in figure.axes for line in axis.get_lines()]
        for figure in (drawn("split", tables, SHOWN, shots=shots) for shots in (None, [1], [2]))
    ]
    assert marks[0] == marks[1] == marks[2]
    assert len(marks[0]) > 20


def test_a_figure_of_the_split_says_that_intervals_are_cut(tmp_path):
    runs = study_of(lambda dataset, seed, level: 4 * level + seed)
    swaps = swaps_of(runs, tmp_path)
    tables = {"runs": runs, "swaps": swaps}
    assert bars.BEYOND not in said(drawn("split", tables, SHOWN))
    tables["swaps"] = swaps.assign(cost=swaps["cost"] + 40 * swaps["seed"].map({0: -1, 1: 0, 2: 1}))
    assert bars.BEYOND in said(drawn("split", tables, SHOWN))


def test_the_figure_why_is_of_what_the_study_shows(tmp_path):
    runs = study_of(lambda dataset, seed, level: level + (dataset == "one") * (level * 3 + seed) % 4)
    runs = pd.concat([runs, runs.assign(shots="10", run=runs["run"] + " 10")])
    measures = measures_of(runs[runs["shots"] == "1"], tmp_path, level_of)
    more = measures.assign(shots="10", change=-measures["change"], run=measures["run"] + "!")
    tables = {"runs": runs, "measures": pd.concat([measures, more])}

    def points(**settings):
        (axis,) = drawn("why", tables, SHOWN, **settings).axes
        return [line.get_xdata()[0] for line in axis.get_lines() if line.get_marker() in ("o", "|")]

    every = drawn("why", tables, SHOWN)
    assert "a single dataset" in [text.get_text() for text in every.legends[0].get_texts()]
    alone = {name: rows[rows["dataset"] == "one"] for name, rows in tables.items()}
    assert len(drawn("why", alone, SHOWN).legends[0].get_texts()) == 2
    expected = why.correlations(measures, runs)["correlation"]
    assert points(shots=[1]) == pytest.approx(expected.tolist())
    assert points(shots=[10]) == pytest.approx((-expected).tolist())


@pytest.mark.parametrize("kind", ["split", "why"])
def test_figures_of_a_study_without_a_result_are_drawn(kind):
    shown = {name: ShownBackbone(name.split()[0], 0.5, False, name) for name in ("dense", "compressed 1")}
    runs = study_of(lambda *_: 0, levels=())
    swaps, measures = split.of_study([], runs), why.of_study([], runs)
    figure = drawn(kind, {"runs": runs, "swaps": swaps, "measures": measures}, shown)
    assert not any(axis.collections for axis in figure.axes)


@pytest.mark.slow
def test_a_real_study_says_why_and_whose_the_cost_is_and_is_measured_anew_without_training(tmp_path):
    project, given = tmp_path / "project", ("--configfile", "mine.yaml")
    project.mkdir()
    copy_project(project)
    shutil.copy(project / "studies/smoke.yaml", project / "mine.yaml")
    pruned = {"name": "pruned", "checkpoint": "mobilenetv2"}
    pruned["compression"] = {"algorithm": "magnitude", "sparsity": 0.2}
    changes = {"study": "mine", "analysis": ["why", "split"], "methods": ["ilm"], "shots": [1, 2, 3, 4]}
    configure(project, lambda config: config.update(changes), "mine.yaml")
    configure(project, lambda config: config["backbones"].__setitem__(1, pruned), "mine.yaml")
    made = ["tables/split.csv", "tables/why.csv", "tables/claims.csv", "figures/split.png", "figures/why.png"]
    wanted = [f"results/mine/{one}" for one in made]
    ran, _ = snakemake(project, *wanted, *given)
    assert (ran["train"], ran["compare"], ran["tabulate_why"], ran["tabulate_split"]) == (2, 2, 1, 1)
    found = {Path(one).stem: tables.read(project / one) for one in wanted if one.endswith(".csv")}
    runs = tables.read(project / "results/mine/tables/runs.parquet").set_index(["backbone", "shots"])["accuracy"]
    of_cells = found["split"].set_index("shots")
    cost = 100 * (runs["mobilenetv2-dense"] - runs["pruned"])
    assert of_cells["cost"].to_numpy() == pytest.approx(cost[of_cells.index].to_numpy())
    parts = of_cells[["part_network", "part_prompt", "part_mapping"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(of_cells["cost"].to_numpy(), abs=1e-3)
    assert set(found["why"]["measure"]) == set(MEASURES)
    measures = tables.read(project / "results/mine/tables/measures.parquet")
    assert measures.query("measure == 'cka'")["value"].between(0.5, 1).all()
    claims = found["claims"].set_index("claim")
    assert claims.loc["split-mapping", "cells"] == 4
    assert claims.loc["why-cka", "verdict"] == "not run"  # of one network, whose CKA is one at all shots
    assert found["why"].set_index("measure").loc[["margin", "cka"], "cells"].tolist() == [4, 0]
    replace(project, "src/hiddencost/runs/measures.py", "EPS = ", "EPS = 2 * ")  # as of another measure
    jobs = planned(project, *wanted, *given)
    assert jobs == {"compare": 1, "tabulate_why": 1, "claims": 1, "figure": 1}

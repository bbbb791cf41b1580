import http.server
import itertools
import json
import re
import shutil
import subprocess
import threading
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT, report_prepared
from PIL import Image

from hiddencost.catalog.entries import Counts
from hiddencost.figures import style
from hiddencost.files import sha256_file, write_json
from hiddencost.report import page as report_page
from hiddencost.report import provenance, summary
from hiddencost.report.page import write
from hiddencost.report.summary import headline
from hiddencost.results import matched, means, tables
from hiddencost.results.upstream import with_shares
from hiddencost.results.verdicts import COLUMNS as CLAIM_COLUMNS
from hiddencost.results.verdicts import VERDICTS
from hiddencost.runs.metrics import METRICS

HOSTILE = "</script><script>window.injected = 1</script><img src=x onerror='window.injected = 2'> & \"quoted\""
BACKBONES = {  # compression, control, sparsity, dense
    "dense": ("none", None, 0.0, "dense"),
    "pruned": ("magnitude", None, 0.2, "dense"),
    "sparse": ("magnitude", None, 0.5, "dense"),
    "random": ("none", "random_init", 0.0, "dense"),
    "gone": ("lth", None, 0.9, "dense"),
}
DATASETS, METHODS, SHOTS, SEEDS = {"one": 10.0, "two": np.nan}, ["rlm", "flm", "lp"], ["1", "10", "full"], [0, 1, 2]
CLAIMS = [
    {"claim": "costs", "text": "Compression costs accuracy", "verdict": "supported", "effect": 5.0, "low": 4.0}
    | {"high": 6.0, "cells": 12, "published": 20.0, "note": HOSTILE, "source": "section 3"},
    {"claim": "helps", "text": "Compression helps", "verdict": "contradicted", "effect": -5.0, "low": -6.0}
    | {"high": -4.0, "cells": 12, "note": "0 of 12 cells", "source": "section 3"},
    {"claim": "tickets", "text": HOSTILE, "verdict": "not run", "cells": 0, "source": "section 4"},
]
EXPECTATION = {"backbone": "dense", "dataset": "one", "method": "lp", "shots": 1, "accuracy": 60.0, "std": 1.0}
EXPECTED = EXPECTATION | {"source": HOSTILE}
LOOK = {"colours": {"rlm": "#123456"}, "labels": {"two": HOSTILE}, "palette": "RdBu_r", "title": "made-up numbers"}
LOOK |= {"formats": ["svg"]}


def made_up_runs():
    """Made-up runs: one diverged, a backbone is not public."""
    random, rows = np.random.default_rng(0), []
    for backbone, dataset, method, shots, seed in itertools.product(BACKBONES, DATASETS, METHODS, SHOTS, SEEDS):
        compression, control, sparsity, dense = BACKBONES[backbone]
        status = "not run" if backbone == "gone" else "ok"
        status = (
            "diverged" if (backbone, dataset, method, shots, seed) == ("sparse", "two", "flm", "1", 0) else status
        )
        reason = {"ok": None, "not run": HOSTILE, "diverged": "a test logit is not finite"}[status]
        row = {"study": "small", "checkpoint": "net", "backbone": backbone, "dense": dense, "control": control}
        row |= {"recipe_dense": dense, "classes": DATASETS[dataset]}
        row |= {"compression": compression, "sparsity_declared": sparsity, "sparsity_measured": sparsity}
        row |= {
            "dataset": dataset,
            "method": method,
            "shots": shots,
            "seed": seed,
            "status": status,
            "reason": reason,
        }
        if status == "ok":
            accuracy = {"rlm": 0.2, "flm": 0.4, "lp": 0.6}[method] + 0.1 * SHOTS.index(shots) - 0.2 * sparsity
            accuracy = 0.1 if control else accuracy + random.normal(0, 0.005)
            row |= dict.fromkeys(METRICS, accuracy / 2) | {"accuracy": accuracy, "train_seconds": 60.0}
            row |= {
                "device": "a processor",
                "precision": "fp32",
                "python": "3.11",
                "torch": "2",
                "torchvision": "0.1",
            }
            middle = (np.arange(15) + 0.5) / 15
            row |= {"bin_count": [0] + [10] * 14, "bin_confidence": middle, "bin_accuracy": 0.8 * middle, "timm": "1"}
        rows.append(row)
    return pd.DataFrame(rows).reindex(columns=tables.run_columns() + tables.BIN_COLUMNS)


def make(folder, runs=None, claims=CLAIMS, expectations=(EXPECTED,), figures=("accuracy",), photos=20):
    """Lay out a study's results with made-up numbers and write its report; returns the path. photos: how many the
    networks were shown."""
    runs = made_up_runs() if runs is None else runs
    results = folder / "results/small"
    summary = tables.summarise(runs)
    upstream = pd.DataFrame({"backbone": list(BACKBONES), "top1": np.nan, "photos": 18.0, "photos_shown": 20})
    upstream.loc[upstream["backbone"].isin(["dense", "sparse"]), "top1"] = [72.0, 70.5]
    if photos > 20:
        upstream = upstream.assign(top1=np.nan, photos=0.8 * photos, photos_shown=photos)
    upstream = with_shares(upstream)
    written = {
        "runs.parquet": runs[tables.run_columns()],
        "bins.parquet": tables.bins(runs),
        "summary.csv": summary,
        "means.csv": means.means(runs),
        "claims.csv": pd.DataFrame(claims, columns=CLAIM_COLUMNS),
        "expectations.csv": tables.against_published(summary, list(expectations)),
        "upstream.csv": upstream,
        "matched.csv": matched.matched(runs, upstream),
    }
    for name, table in written.items():
        tables.write(table, results / "tables" / name)
    for backbone in ("dense", "sparse"):
        known = {"top1": 18 if photos == 20 else 4 * photos // 5, "count": photos, "exempt": False}
        gate = {"passed": backbone == "dense", "reasons": [] if backbone == "dense" else [HOSTILE], "photos": known}
        gate |= {"sparsity_declared": 0.0, "sparsity_measured": 0.0}
        (results / "backbones" / backbone).mkdir(parents=True)
        write_json(results / f"backbones/{backbone}/verification.json", gate)
        write_json(results / f"backbones/{backbone}/manifest.json", {"weights_sha256": "ab" * 32})
    log = results / "logs/train/sparse/two/seed0.log"
    log.parent.mkdir(parents=True)
    log.write_text("diverged")
    for number, rule in enumerate(("collect", "train/dense/one/seed0", "train/dense/one/seed1")):
        benchmark = results / f"benchmarks/{rule}.tsv"
        benchmark.parent.mkdir(parents=True, exist_ok=True)
        benchmark.write_text(f"s\tmax_rss\n{(60, 120, 150)[number]}\t{'NA' if rule == 'collect' else 500 + number}\n")
    for figure in figures:
        (results / "figures").mkdir(exist_ok=True)
        Image.new("RGB", (1360, 600), "#0072B2").save(results / f"figures/{figure}.png")
    write_json(
        folder / "resources/checkpoints/net/fetched.json",
        {"files": {"weights": {"path": "a/net.pth", "sha256": "cd" * 32, "source": HOSTILE}}},
    )
    datasets = list(runs["dataset"].unique())
    study = {"study": "small", "seeds": SEEDS, "methods": METHODS, "protocol": {"canvas": 64}, "figures": LOOK}
    study["datasets"] = [{"name": name, "image_size": 32} for name in datasets]
    study["verification"] = {"photos": "imagenet20", "photos_top1": 12}
    study["backbones"] = [{"name": name, "checkpoint": "net"} for name in runs["backbone"].unique()]
    settings = {
        "study": json.dumps(study),
        "labels": study["figures"]["labels"],
        "results": "results/small",
    }
    settings["prepared"] = [
        str(folder / f"resources/datasets/{name}/{size}") for name in datasets for size in (32, 64)
    ]
    settings["captions"] = [[figure, f"Title of {figure}", f"What is shown. {HOSTILE}"] for figure in figures]
    names = {name.split(".")[0]: f"results/small/tables/{name}" for name in written}
    write(Path("results/small/report.html"), names, settings, ROOT)
    return results / "report.html"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The folder that the workflow would run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(report_page, "_bundle", lambda: "window.vegaEmbed = () => new Promise(() => {});")
    return tmp_path


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    """A report with the real charts, not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runs = made_up_runs()
        runs["classes_short"] = 3.0 * ((runs["dataset"] == "two") & (runs["shots"] == SHOTS[1]))
        short = EXPECTATION | {"dataset": "two", "shots": SHOTS[1], "source": "table 2"}
        return make(folder, runs, expectations=(EXPECTED, short))


@pytest.fixture(scope="module")
def told(page_file):
    """What it says."""
    return Text(page_file.read_text())


class Text(HTMLParser):
    """The text of a page, of each section by its id, and all of its elements."""

    def __init__(self, page):
        super().__init__()
        self.sections, self.elements, self.inside, self.skipped = {}, [], None, False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.skipped = tag in ("script", "style")
        if tag == "section":
            self.inside = dict(attributes)["id"]

    def handle_endtag(self, tag):
        self.skipped = False
        self.inside = None if tag == "section" else self.inside

    def handle_data(self, data):
        if self.inside and not self.skipped:
            words = [*self.sections.get(self.inside, "").split(), *data.split()]
            self.sections[self.inside] = " ".join(words)


def test_the_summary_tells_what_was_asked_and_what_came_out(told):
    summary = told.sections["summary"]
    assert "5 backbones × 2 data sets × 3 methods × 3 budgets × 3 seeds; 55 have no result" in summary
    assert "Runs with a result 215 of 270" in summary
    assert "1 of 2 supported 0 not refuted, 1 contradicted, 0 undecided, 0 at chance, 1 not run" in summary
    machinery = told.sections["provenance"]
    assert "a processor" in machinery
    assert "3.6 h" in machinery  # 215 minutes
    assert re.search(r"train 2 4\.5 min 2\.5 min 502", machinery)
    assert re.search(r"collect 1 1\.0 min 1\.0 min –", machinery)


def test_the_answer_leads_then_caveats_then_figures_and_machinery_is_last(told, page_file):
    sections = ["summary", "warnings", "costs", "claims", "figures", "explore", "tables", "provenance"]
    assert list(told.sections) == sections
    answer = told.sections["summary"]
    assert re.match(r"The answer Cost, visual prompting \+\d\.\d points \[\S+, \S+\] (compression|not told)", answer)
    # each network has its interval, too
    assert re.search(r"magnitude 20 % compressed – – \+\S+ \[\S+, \S+\] \(6\)", told.sections["costs"])
    assert re.search(r"Written \d+ [A-Z][a-z]+ 20\d\d, \d\d:\d\d ", page_file.read_text())


def test_of_many_photos_a_percentage_stands_with_its_interval_and_of_few_their_number(folder, told):
    assert "18 of 20 (exempt)" not in told.sections["tables"]
    assert re.search(r"18 of 20 (?!\()", told.sections["tables"])
    many = Text(make(folder, photos=1000).read_text()).sections
    assert "800 of 1000 (80.0 %, 77.4 to 82.4)" in many["tables"]
    assert "80.0 (77.4 to 82.4)" in many["costs"]
    assert "80.0 (77.4 to 82.4, 1000 photos)" in many["costs"]


def test_headline_costs_are_means_over_the_cells_of_the_compressed():
    runs = made_up_runs()
    prompting, probe = headline(tables.summarise(runs), runs)
    assert prompting["method"] == "visual prompting"
    assert prompting["cells"] == 2 * 2 * 2 * 3  # the backbone that was not run has none
    assert prompting["cost"] == pytest.approx(7, abs=0.5)  # 4 points at 20 %, 10 at 50 %
    assert probe["method"] == "linear probe"
    assert probe["cells"] == 2 * 2 * 3
    assert 0 < probe["over"] <= probe["cells"]
    assert prompting["low"] < prompting["cost"] < prompting["high"]
    assert prompting["speaks_for"] == "over 2 datasets of the kind, 3 seeds each"
    alone = runs.query("seed == 0 and dataset == 'one'")
    assert [(one["low"], one["high"]) for one in headline(tables.summarise(alone), alone)] == [(None, None)] * 2


def test_what_is_not_the_papers_and_cells_that_guess_are_caveats():
    runs = made_up_runs().query("backbone in ('dense', 'pruned', 'random')").assign(n_test_fewest=100)
    guess = (runs["method"] == "flm") & (runs["shots"] == "1")
    runs["mean_class_accuracy"] = np.where(guess, 0.1, 0.5)
    first, second = summary.caveats(runs, "epochs 2 (paper: 100)")
    assert (first["what"], "epochs 2 (paper: 100)" in first["why"]) == ("this is not the paper's study", True)
    # of the dense and the pruned network, on the data set whose classes are known; a control is expected to guess
    assert second["what"] == "2 of 36 cells of networks that have learned are not surely better than guessing"
    assert summary.caveats(runs[~guess], "") == []


def test_what_is_missing_failed_or_diverged_is_a_warning_with_its_log(told):
    warnings = told.sections["warnings"]
    assert "54 of 270 runs not run: gone; on one, two" in warnings
    assert "1 of 270 runs diverged: sparse; on two : a test logit is not finite" in warnings
    assert "logs/train/sparse/two/seed0.log" in warnings
    assert "sparse failed its verification" in warnings
    assert f"{style.shots_label(SHOTS[1])} of two are fewer : 3 classes of two have fewer training images" in warnings


def test_seeds_and_hardware_are_warned_of():
    state = {"commit": "a" * 40, "changed": ["M x"], "why": None}
    runs = made_up_runs().query("seed < 2 and backbone == 'dense'")
    runs.loc[runs["seed"] == 1, "device"] = "another"
    told = [one["what"] for one in summary.warnings(runs, [], [], state, Path("none"), Path("none"))]
    assert told == [
        "two seeds",
        "runs of a method come from several kinds of hardware or precision",
        "the checkout was not clean when this report was written",
    ]


def test_a_budget_above_what_a_class_has_is_warned_of():
    state = {"commit": "a" * 40, "changed": [], "why": None}
    runs = made_up_runs().query("backbone == 'dense'").assign(device="cpu", precision="fp32")
    runs["classes_short"] = 3.0 * ((runs["dataset"] == "two") & (runs["shots"] == runs["shots"].iloc[-1]))
    (told,) = summary.warnings(runs, [], [], state, Path("none"), Path("none"))
    assert told["what"] == f"{style.shots_label(runs['shots'].iloc[-1])} of two are fewer"
    assert told["why"] == "3 classes of two have fewer training images, and give all that they have"


def test_a_published_accuracy_beside_ours_of_a_budget_above_what_a_class_has_is_marked(page_file):
    section = page_file.read_text().partition('id="expectations-title"')[2].partition("</section>")[0]
    assert (section.count(f">{SHOTS[1]} †<"), section.count(" †<")) == (1, 1)


def test_methods_that_compute_otherwise_are_no_warning_and_a_network_without_a_dense_one_is():
    state = {"commit": "a" * 40, "changed": [], "why": None}
    runs = made_up_runs().query("backbone != 'gone' and status == 'ok'").copy()
    runs["precision"] = runs["method"].map(lambda method: "fp32" if method == "lp" else "bf16")
    assert summary.warnings(runs, [], [], state, Path("none"), Path("none")) == []
    runs.loc[runs["backbone"] == "sparse", "dense"] = None
    (told,) = summary.warnings(runs, [], [], state, Path("none"), Path("none"))
    assert (told["what"], told["why"]) == (
        "nothing to compare sparse with",
        "the study has no dense network of theirs",
    )


def test_bands_reach_as_far_as_in_the_printed_figures(page_file):
    cells = json.loads(re.search(r'id="data">(.*?)</script>', page_file.read_text())[1])["cells"]
    reach = dict(zip(cells["seeds"], cells["reach"], strict=True))
    # three seeds: the 95 % interval of their mean; the two of a cell that lost one: from one to the other
    assert (reach[3], reach[2]) == pytest.approx((4.3027 / 3**0.5, 0.5**0.5), rel=1e-4)


def test_the_page_names_no_address_to_load_from_and_lets_its_own_scripts_run_alone(told):
    sources = ("src", "srcset", "data", "poster")
    assert [(tag, key) for tag, one in told.elements for key in sources if key in one] == [("img", "src")]
    assert {tag for tag, _ in told.elements} & {"link", "iframe", "object", "embed", "base"} == set()
    assert not any(key.startswith("on") for _, attributes in told.elements for key in attributes)
    (policy,) = [one["content"] for tag, one in told.elements if one.get("http-equiv") == "Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert re.findall(r"script-src ([^;]*);", policy)[0].count("'sha256-") == 2
    assert "unsafe-eval" not in policy
    assert [tag for tag, _ in told.elements].count("script") == 3


def test_what_comes_from_a_study_is_text_and_never_html(page_file, told):
    text = page_file.read_text()
    assert "<script>window.injected" not in text
    assert "<img src=x" not in text
    for section in ("warnings", "claims", "figures", "tables", "provenance"):
        assert "window.injected = 2" in told.sections[section], section


def test_provenance_has_the_hash_of_every_input(page_file, told):
    provenance = told.sections["provenance"]
    assert "net.pth" in provenance
    for sha256 in ("ab" * 32, "cd" * 32, sha256_file(page_file.parent / "tables/runs.parquet")):
        assert sha256 in provenance
    assert "Python 3.11, torch 2, torchvision 0.1, timm 1" in provenance
    assert f"pandas {pd.__version__}" in provenance


def test_provenance_has_the_images_that_the_study_uses_and_no_others(folder):
    for size in (32, 64, 73, 128):  # of prompting, of the probe, of fine-tuning, which it has not; of another study
        report = report_prepared(sha256={"test_images.npy": f"{size:064}"})
        report = report.model_copy(update={"size": str(size)})
        report.write(folder / f"resources/datasets/one/{size}")
    told = Text(make(folder).read_text()).sections["provenance"]
    assert re.findall(r"test_images.npy at (\d+) pixels 0+\1\b", told) == ["32", "64"]


def test_what_was_read_of_a_dataset_and_what_was_left_out_is_told(folder):
    report = report_prepared(["a", "b"]).model_copy(
        update={
            "counts": Counts(train=1200, test=345),
            "remarks": ["left out, <hidden>: 3, such as a/.x", "upright: 2"],
        }
    )
    report.write(folder / "resources/datasets/one/32")
    failed = report_prepared(failed="two/a.jpg: cannot be read").model_copy(update={"dataset": "two"})
    failed.write(folder / "resources/datasets/two/32")
    told = Text(make(folder).read_text()).sections["tables"]
    assert " 2 1200 345 left out, <hidden>: 3, such as a/.x; upright: 2" in told
    assert " 0 0 0 two/a.jpg: cannot be read" in told


def test_a_figure_links_to_its_file_and_what_is_no_figure_of_the_study_is_told(folder):
    (folder / "results/small/figures").mkdir(parents=True)
    for earlier in ("accuracy.pdf", "accuracy.svg", "heatmap-one.png"):
        (folder / "results/small/figures" / earlier).touch()
    page = Text(make(folder).read_text())
    assert "Title of accuracy" in page.sections["figures"]
    links = {one["href"] for tag, one in page.elements if tag == "a" and one["href"].startswith("figures/")}
    assert links == {"figures/accuracy.svg"}
    assert "figures/ holds other files, too" in page.sections["warnings"]
    assert "accuracy.pdf, heatmap-one.png" in page.sections["warnings"]
    assert (folder / "results/small/figures/accuracy.pdf").exists()


def test_names_that_look_like_numbers_or_nothing_are_names(folder):
    names = {"dense": "nan", "pruned": "1e5"}
    runs = made_up_runs().query("dataset == 'one'").assign(dataset="2024")
    runs = runs.replace({"backbone": names, "dense": names, "recipe_dense": names})
    text = make(folder, runs).read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.+?)</script>', text)[1])
    assert [one["name"] for one in data["axes"]["dataset"]] == ["2024"]
    assert {"nan", "1e5"} <= {one["name"] for one in data["axes"]["backbone"]}
    assert set(data["cells"]["dataset"]) == {0}
    assert set(data["cells"]["backbone"]) == set(range(len(BACKBONES)))
    best = Text(text).sections["tables"]
    assert re.search(r"2024 \d+\.\d \d+\.\d 3 nan linear probe full", best)


def test_a_training_that_several_budgets_are_is_drawn_once_and_called_all(folder):
    runs = made_up_runs().query("backbone != 'gone'").reset_index(drop=True)
    runs["run"] = runs.index.map("{:064x}".format)
    copied, first = ((runs["dataset"] == "two") & (runs["shots"] == shots) for shots in ("full", "10"))
    same = ["run", "status", "reason", *METRICS]
    runs.loc[copied, same] = runs.loc[first, same].to_numpy()
    text = make(folder, runs).read_text()
    data = json.loads(re.search(r'<script type="application/json" id="data">(.+?)</script>', text)[1])
    assert [one["budgets"] for one in data["axes"]["dataset"]] == [["1", "10", "full"], ["1", "10 = all", None]]
    drawn = list(zip(data["cells"]["dataset"], data["cells"]["shots"], strict=True))
    assert drawn.count((0, 2)) == 4 * 3
    assert drawn.count((1, 1)) == 4 * 3
    assert (1, 2) not in drawn


def test_a_study_without_results_claims_or_figures_has_a_report(folder):
    runs = made_up_runs().assign(status="not run", reason="nothing yet", device=None, train_seconds=np.nan)
    runs[list(METRICS)] = np.nan
    page = Text(make(folder, runs, claims=[], expectations=[], figures=[]).read_text())
    assert "Runs with a result 0 of 270" in page.sections["summary"]
    assert "None could be put to the test" in page.sections["claims"]
    assert "The study names none" in page.sections["tables"]


def test_the_state_of_the_checkout_is_told(tmp_path):
    assert "not a git repository" in provenance.checkout(tmp_path)["why"]

    def git(*arguments):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        subprocess.run(["git", "-C", tmp_path, *author, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "--message", "a")
    state = provenance.checkout(tmp_path)
    assert re.fullmatch("[0-9a-f]{40}", state["commit"])
    assert state["changed"] == []
    (tmp_path / "a").write_text("2")
    assert provenance.checkout(tmp_path)["changed"] == [" M a"]
    inner = tmp_path / "inner"
    inner.mkdir()
    assert provenance.checkout(inner)["commit"] is None  # the repository around it is another


def test_what_sets_all_claims_apart_from_the_paper_is_told_once():
    rows = [
        {"claim": "a", "relation": "epochs 2 (paper: 100); other network: net; 2 seeds (paper: 3)"},
        {"claim": "b", "relation": "epochs 2 (paper: 100); 2 seeds (paper: 3)"},
        {"claim": "c", "relation": None},  # not run
    ]
    own, shared = summary.against_paper(rows)
    assert shared == "epochs 2 (paper: 100); 2 seeds (paper: 3)"
    assert [row["relation"] for row in own] == ["other network: net", None, None]
    for alone in (rows[1:], [{"claim": str(n), "relation": "as in the paper"} for n in range(2)], []):
        assert summary.against_paper(alone) == (alone, "")


def test_verdicts_are_defined_in_sentences():
    for meaning in VERDICTS.values():
        assert meaning[0].isupper()
        assert meaning.endswith(".")


def test_panels_of_reliability_share_one_scale(page_file):
    data = json.loads(
        re.search('<script type="application/json" id="data">(.*?)</script>', page_file.read_text(), re.S)[1]
    )
    axes = [layer["encoding"]["y"] for layer in data["panels"]["reliability"]["layer"][1:]]
    # the gap is a fifth of the confidence, up to 96.7 %
    assert [axis["scale"]["domain"] for axis in axes] == [[pytest.approx(-20 * 14.5 / 15, abs=0.01), 5.0]] * 2


# In a browser

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM:
        pytest.skip("no Chromium is installed; `make test-browser` installs one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # as root, and in a container, Chromium cannot build its sandbox
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture(params=[1280, 400])
def page(browser, page_file, request):
    """The report, opened from disk at a width; what it says on the console or asks of a network fails the test."""
    told, asked = [], []
    opened = browser.new_page(viewport={"width": request.param, "height": 900})
    opened.on("console", lambda message: told.append(message.text))
    opened.on("pageerror", lambda error: told.append(str(error)))
    opened.on("request", lambda one: asked.append(one.url))
    opened.goto(page_file.as_uri())
    yield opened
    opened.close()
    assert told == []
    assert [url for url in asked if not url.startswith(("data:", "blob:"))] == [page_file.as_uri()]


def see(page, kind):
    """Bring the panels of a kind into view, wait until they are drawn, and return how many there are."""
    panels = f".panels[data-kind={kind}] .panel"
    for panel in page.locator(panels).all():
        panel.scroll_into_view_if_needed()
    page.locator(f"{panels}:not(:has(svg))").first.wait_for(state="detached")
    return page.locator(panels).count()


def points(page, kind):
    """How many points a kind of panel shows."""
    return page.locator(f".panels[data-kind={kind}] svg g.mark-symbol path").count()


def press(page, selector):
    page.locator("#filter details").evaluate("element => { element.open = true }")
    page.locator(selector).click()


def column(table, number):
    return table.locator(f"tbody tr td:nth-child({number}), tbody tr th:nth-child({number})").all_inner_texts()


@pytest.mark.browser
def test_it_loads_draws_and_fits_its_width(page):
    page.locator(".panel:not(:has(svg))").first.wait_for(state="detached")  # those that are not in view, too
    assert see(page, "curves") == see(page, "costs") == 6  # a data set and method
    assert page.locator(".key[data-of=method] span:has-text('FLM-VP')").count() == 1  # the legend is by the charts
    assert see(page, "reliability") == 8  # nothing to draw of the backbone that was not run
    assert page.evaluate("window.injected") is None
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]
    assert page.locator("img").evaluate("image => image.complete && image.naturalWidth") == 1360
    assert page.locator("#cells tbody tr").count() == 90
    assert page.locator("#cells tbody tr", has_text="†").count() == 15  # a data set at a number of shots
    notes = page.locator(".panels[data-kind=curves] figcaption .small").all_inner_texts()
    assert sum(f"some classes have fewer images than {SHOTS[1]} shots" in note for note in notes) == 3
    stray = page.locator("main > section:not(:has(> h2))").count()
    assert stray == 0
    assert page.locator("img:not([alt])").count() == 0


@pytest.mark.browser
def test_filters_change_what_is_drawn(page):
    see(page, "curves")
    # 4 backbones with results, 3 methods, 3 budgets, of two data sets; one cell lost a seed and keeps two
    assert points(page, "curves") == 4 * 3 * 3 * 2
    press(page, "input[name=method][value=rlm]")
    see(page, "curves")
    assert points(page, "curves") == 4 * 2 * 3 * 2
    assert see(page, "costs") == 4
    press(page, "input[name=backbone][value=dense]")
    press(page, "input[name=dataset][value=two]")
    assert see(page, "curves") == 2
    assert points(page, "curves") == 3 * 2 * 3
    assert see(page, "reliability") == 3
    assert page.locator("#cells tbody tr").count() == 4 * 2 * 3
    assert "24 of 90 cells" in page.locator("#chosen").inner_text()
    press(page, "fieldset:has([name=method]) button:text-is('none')")
    assert page.locator(".panel").count() == 0
    assert page.locator("#cells tbody tr").count() == 0
    press(page, "fieldset:has([name=method]) button:text-is('all')")
    assert see(page, "curves") == 3


@pytest.mark.browser
@pytest.mark.parametrize("page", [1280], indirect=True)
def test_the_measure_changes_what_is_drawn(page):
    see(page, "curves")
    before = page.locator(".panels[data-kind=curves] svg").first.inner_html()
    page.locator("select[name=measure]").select_option("ece")
    see(page, "curves")
    after = page.locator(".panels[data-kind=curves] svg").first.inner_html()
    assert before != after
    assert "Calibration error (ECE) (points)" in after
    assert see(page, "costs") == 6
    page.locator("select[name=measure]").select_option("nll")
    assert see(page, "costs") == 0


@pytest.mark.browser
@pytest.mark.parametrize("page", [1280], indirect=True)
def test_the_costs_are_those_of_the_summary(page, page_file):
    see(page, "costs")
    summary = pd.read_csv(page_file.parent / "tables/summary.csv", dtype={"shots": str}).set_index(
        ["dataset", "method", "backbone", "shots"]
    )
    texts = (
        page.locator(".panels[data-kind=costs] .panel")
        .first.locator("svg .mark-text.role-mark text")
        .all_text_contents()
    )
    wanted = [
        100 * summary.loc[("one", "rlm", backbone, shots), "accuracy_dense_minus_backbone_mean"]
        for backbone, shots in itertools.product(("pruned", "sparse", "random"), SHOTS)
    ]
    wanted = [f"{value:+.{1 if abs(value) < 9.95 else 0}f}".replace("-", "−") for value in wanted]
    assert sorted(texts) == sorted([*wanted, *["–"] * 3])


@pytest.mark.browser
@pytest.mark.parametrize("page", [1280], indirect=True)
def test_tables_sort(page):
    cells = page.locator("#cells")
    heading = cells.locator("th", has_text="Accuracy, %")
    for direction, reverse in (("ascending", False), ("descending", True)):
        heading.locator("button").click()
        assert heading.get_attribute("aria-sort") == direction
        values = [float(text.split(" ")[0]) for text in column(cells, 6) if text != "–"]
        assert len(values) == 72
        assert values == sorted(values, reverse=reverse)
        assert column(cells, 6)[-18:] == ["–"] * 18  # what was not run stays last
    claims = page.locator("table.claims").first
    assert column(claims, 2) == ["supported", "contradicted"]
    claims.locator("th button", has_text="Verdict").click()
    assert column(claims, 2) == ["contradicted", "supported"]
    claims.locator("th button", has_text="Effect").click()
    assert column(claims, 3) == ["−5.00 points", "+5.00 points"]


@pytest.mark.browser
@pytest.mark.parametrize("page", [1280], indirect=True)
def test_a_print_cuts_and_folds_nothing_and_keeps_the_legend(page):
    page.locator("details[open]").first.evaluate("element => { element.open = false }")
    folded = page.locator("details:not([open])").count()
    seen = "window.seen = document.querySelectorAll('details:not([open])').length"
    page.evaluate(f"addEventListener('beforeprint', () => {{ {seen} }})")
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    assert page.evaluate("window.seen") == 0
    assert page.locator("details:not([open])").count() == folded
    page.set_viewport_size({"width": 1032, "height": 700})  # A4 across, without its margins
    page.emulate_media(media="print")
    cut = "all => all.filter(one => one.scrollWidth > one.clientWidth + 1 && one.clientWidth).length"
    assert page.locator("main, .scroll, pre").evaluate_all(cut) == 0
    # Chromium does not print a button again where a table goes on
    assert page.locator("thead button").first.evaluate("one => getComputedStyle(one).display") == "contents"
    page.locator("#filter details").evaluate("element => { element.open = true }")
    assert not page.locator("#filter input").first.is_visible()
    assert page.locator("#filter label", has_text="FLM-VP").is_visible()
    assert not page.locator("#filter button").first.is_visible()


@pytest.mark.browser
def test_the_policy_stops_a_request(page_file, browser):
    """The guard itself: what the page may not ask for is not asked for."""
    reached = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reached.append(self.path)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=partial(server.serve_forever, 0.02), daemon=True).start()
    page = browser.new_page()
    page.goto(page_file.as_uri())
    outcome = page.evaluate(f"fetch('http://127.0.0.1:{server.server_port}/').then(() => 'sent', () => 'refused')")
    page.close()
    server.shutdown()
    server.server_close()
    assert outcome == "refused"
    assert reached == []


def test_the_recipe_is_that_of_the_rows_and_one_that_the_study_states_otherwise_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runs = made_up_runs()
    runs = runs.astype({"recipe": object})
    then = {"epochs": 2, "learning_rate": 0.01, "canvas": 64, "batch_size": 20}
    prompted = runs["method"].isin(["rlm", "flm"]) & (runs["status"] == "ok")
    runs.loc[prompted, "recipe"] = json.dumps(then)
    now = {
        "protocol": then | {"learning_rate": 0.5, "batch_size": 7},
        "clip": then | {"epochs": 9, "learning_rate": 1},
    }
    (recipe,) = provenance.recipes(runs, now)
    assert recipe == {
        "settings": "epochs 2, learning_rate 0.01, canvas 64, batch_size 20",
        **{"methods": ["rlm", "flm"], "runs": int(prompted.sum()), "other": ["learning_rate"]},
    }
    (told,) = summary.warnings(runs[prompted], [recipe], [], {"changed": None}, tmp_path, tmp_path)
    assert told["what"] == f"{prompted.sum()} runs (rlm, flm) are of another recipe than the study states now"
    assert "learning_rate; as the study was when they were trained: epochs 2, learning_rate 0.01" in told["why"]
    (recipe,) = provenance.recipes(runs, {"protocol": then})
    assert recipe["other"] == []
    # that of another family of networks is no excuse
    (recipe,) = provenance.recipes(runs, {"protocol": then | {"epochs": 9}, "clip": then})
    assert recipe["other"] == ["epochs"]
    (recipe,) = provenance.recipes(
        runs.assign(checkpoint="openclip-ViT-B-32.openai"), {"protocol": then | {"epochs": 9}, "clip": then}
    )
    assert recipe["other"] == []
    html = make(tmp_path, runs).read_text()
    assert "learning_rate 0.01, canvas 64" in html

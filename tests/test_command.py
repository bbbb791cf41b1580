"""The command `hiddencost`: the calls of snakemake that it makes, the studies that it writes, and what it tells."""

import argparse
import os
import re
import subprocess
import sys
import time

import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
import torchvision
import yaml
from conftest import ROOT
from snakemake.cli import parse_config
from stubbed_project import LOCALLY, environment_of, snakemake, trained

from hiddencost.command import main, overrides, studies
from hiddencost.jobs import outlook
from hiddencost.jobs.call import read_call, read_config

COMMAND = [sys.executable, "-c", "from hiddencost.command.main import main; main()"]


@pytest.fixture
def called(monkeypatch, capsys):
    """called(words) is what `snakemake` would be called with, in the folder of this checkout."""

    def called(*words):
        calls = []
        monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
        main.main(words)
        ((program, call),) = calls
        assert (program, call[:3]) == (sys.executable, [sys.executable, "-m", "snakemake"])
        assert capsys.readouterr().err.startswith("+ snakemake ")
        return call[3:]

    monkeypatch.chdir(ROOT)
    return called


@pytest.mark.parametrize(
    ("words", "snakemake"),
    [
        ("run studies/smoke.yaml", "--configfile studies/smoke.yaml"),
        ("run studies/smoke.yaml config.yaml", "--configfile studies/smoke.yaml config.yaml"),
        (
            "run studies/smoke.yaml --seeds 0,1 --shots 1,full --set protocol.epochs=3 --set protocol.gamma=0.2",
            "--configfile studies/smoke.yaml --config|protocol={epochs: 3, gamma: 0.2}|seeds=[0,1] shots=[1,full]",
        ),
        ("run --seeds 7 -- --cores 4 fetch", "--cores 4 fetch --config seeds=[7]"),
        ("plan", "--dry-run --quiet host reason rules progress"),
        ("figures studies/smoke.yaml", "figures --configfile studies/smoke.yaml"),
        (
            "figures studies/smoke.yaml --so-far",
            "figures --nolock --configfile studies/smoke.yaml --config partial=true",
        ),
    ],
)
def test_a_command_is_a_call_of_snakemake(called, words, snakemake):
    head, *rest = snakemake.split("|")
    expected = head.split()
    if rest:
        expected += [rest[0], *rest[1].split()]
    assert called(*words.split()) == expected


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("Cost, measured", "Cost, measured"),
        ("'Cost, \"measured\"'", 'Cost, "measured"'),
        ('"Cost: {a}, [b] # c"', "Cost: {a}, [b] # c"),
        ("Cost {a}, b # c", "Cost {a}, b # c"),
        ("Größe, halb", "Größe, halb"),
        ("plain", "plain"),
        ("[a, b]", ["a", "b"]),
        ("{a: [1, 0.5], b: true}", {"a": [1, 0.5], "b": True}),
        ("3", 3),
    ],
)
def test_a_value_is_what_it_is_in_a_study(called, given, value):
    """Also a text with commas, for snakemake, which reads it by itself, and for the status."""
    words = ["--set", f"figures.title={given}", "--set", "figures.style=dark"]
    *_, flow = called("run", *words)
    expected = {"figures": {"title": value, "style": "dark"}}
    assert read_config([], parse_config([flow])) == expected
    assert overrides.as_values(overrides.of(argparse.Namespace(set=words[1::2], seeds=None, shots=None))) == expected


def test_elsewhere_the_workflow_is_named(called, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert called("plan")[:2] == ["--snakefile", str(ROOT / "Snakefile")]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("run smoke.yaml", r"smoke.yaml: there is no such file; did you mean studies/smoke.yaml\?"),
        ("run mine.yaml", "mine.yaml: there is no such file; expected the YAML file of a study"),
        ("run --set epochs", "--set epochs: expected KEY=VALUE, such as protocol.epochs=3"),
        ("run --set protocol=1 --set protocol.epochs=3", "--set protocol.epochs=3: protocol itself is set, too"),
        ("run --set protocol.epochs=3 --set protocol=1", "--set protocol=1: a key below protocol is set, too"),
        ("status -- --cores 2", "status: it calls no snakemake; expected nothing behind --"),
        ("status --set protocol.epochs=x", r"config.yaml: protocol.epochs: 'x' is not allowed"),
        ("status --set study=[", r"--set study=\[, line \d: not YAML: did not find expected node content"),
        ("new paper", "File exists"),
        ("new Mine", "study: "),
        ("new mine --checkpoint resnet5", "backbones"),
        ("new mine --sparsities a", "--sparsities: 'a' is no number; expected shares such as 0.2,0.5"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(monkeypatch, words, told):
    monkeypatch.chdir(ROOT)
    before = sorted((ROOT / "studies").iterdir())
    with pytest.raises(SystemExit, match=rf"^hiddencost: .*{told}"):
        main.main(words.split())
    assert sorted((ROOT / "studies").iterdir()) == before


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("seeds: [0\nmethods: [ilm]\n", ", line 2: not YAML: did not find expected ',' or ']'"),
        ("study: mine\n\tseeds: [0]\n", r", line 2: not YAML: .*there is a tab: expected spaces"),
        ("", ": it is empty; expected keys, with a colon and a value behind each"),
        ("- mine\n", ": a sequence; expected keys"),
        ("seeds: [0]\nseeds: [1]\n", ", line 2: the key 'seeds' stands in line 1, too; expected it once"),
    ],
)
def test_a_study_that_is_no_yaml_is_told_in_a_line_before_snakemake_reads_it(tmp_path, text, told):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(SystemExit, match=f"^hiddencost: {tmp_path}/mine.yaml{told}") as ended:
        main.main(["plan", str(tmp_path / "mine.yaml")])
    assert len(str(ended.value).splitlines()) == 1


def hiddencost(project, *words, status=0):
    done = subprocess.run(
        [*COMMAND, *words], cwd=project, env=environment_of(project), capture_output=True, text=True, timeout=300
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stderr + done.stdout


def tables_of(project, study):
    """Its tables of runs and cells, but for its name, and times."""
    folder = project / f"results/{study}/tables"
    runs, summary = pd.read_parquet(folder / "runs.parquet"), pd.read_csv(folder / "summary.csv")
    times = ["run", "train_seconds", "images_per_second"]
    return runs.drop(columns=["study", *times]), summary.drop(columns=["study"])


def test_the_command_and_snakemake_give_equal_tables(project):
    config = yaml.safe_load((project / "config.yaml").read_text())
    config["backbones"] = config["backbones"][:1]
    names = ("one", "two", "three")
    for name in names:
        (project / f"studies/{name}.yaml").write_text(yaml.safe_dump(config | {"study": name}))
    (project / "more.yaml").write_text("seeds: [0, 1]\nprotocol: {epochs: 3}\n")
    said = hiddencost(
        project, "run", "studies/one.yaml", "--seeds", "0,1", "--set", "protocol.epochs=3", "--", *LOCALLY
    )
    assert "runs of study one have a result." in said
    snakemake(project, "--configfile", "studies/two.yaml", "--config", "seeds=[0,1]", "protocol={epochs: 3}")
    snakemake(project, "--configfile", "studies/three.yaml", "more.yaml")
    (runs, summary), *others = [tables_of(project, name) for name in names]
    assert runs["recipe"][runs["method"] != "lp"].str.contains('"epochs":3[,}]').all()
    assert set(runs["seed"]) == {0, 1}
    for other in others:
        pd.testing.assert_frame_equal(runs, other[0])
        pd.testing.assert_frame_equal(summary, other[1])
    assert len(trained(project)) == 3 * len(runs)


def test_a_plan_is_the_end_of_a_dry_run(project):
    said = hiddencost(project, "plan", "--seeds", "0,1", "--", "--cores", "1")
    _, dry = snakemake(project, "--dry-run", "--config", "seeds=[0,1]")
    end = dry[dry.index("Study small: ") :]
    assert end in said
    lines = said.partition("Study small: ")[0].splitlines()
    known = "+ snakemake ", "Using ", "Assuming ", "Config file ", "This was a dry-run"
    assert [line for line in lines if line and not line.startswith(known)] == []
    assert "24 runs in 8 packs, of which 4 are up to date" in said


def test_the_status_is_told_from_files(project):
    said = hiddencost(project, "status")
    assert said.splitlines()[0] == "Study small: 4 of 4 packs are done"
    assert "12 of 12 runs of study small have a result." in said
    pack, conclusion = project / "results/small/runs/dense/cifar10-part/seed0.parquet", "results/small/conclusion.txt"
    claim = "{text: It costs, source: ours, measure: accuracy_lost, more_than: 1}"
    (project / "more.yaml").write_text(f"claims: {{mine: {claim}}}")
    outdated = f"  outdated   {conclusion}: of other runs, claims or code than now; hiddencost run writes it anew"
    for words in (["--shots", "2"], ["config.yaml", "more.yaml"]):
        assert hiddencost(project, "status", *words).splitlines()[1:] == [outdated]
    for file in (pack, project / "results/small/tables/runs.parquet"):  # as a checkout or a copy has other times
        os.utime(file)
    assert hiddencost(project, "status") == said
    runs = pq.read_table(pack)
    pq.write_table(runs.take([*reversed(range(len(runs)))]), pack)
    assert hiddencost(project, "status").splitlines()[1:] == [outdated]
    log = project / "results/small/logs/train/dense/cifar10-part/seed1.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("12:00:00 begun\n1 of 4 runs done:  50%|#####     | 100/200 [00:10<00:10, 10.0 images/s]\n")
    said = hiddencost(project, "status", "--seeds", "0,1").splitlines()
    assert said[0] == "Study small: 4 of 8 packs are done"
    assert said[1].startswith(
        "  results/small/logs/train/dense/cifar10-part/seed1.log, 1 min ago: 1 of 4 runs done:  50%"
    )
    assert said[2].startswith("  time left  about ")
    hour = time.time() - 7200
    os.utime(log, (hour, hour))
    assert "ago:" not in hiddencost(project, "status", "--seeds", "0,1")


def plan(folder, monkeypatch, file):
    monkeypatch.chdir(folder)
    call = read_call(read_config([file], {}), str(file), "snakemake")
    return call, outlook.describe(call, (), ROOT / "bench/results/throughput.json", 0, None)


@pytest.mark.parametrize("recipe", ["draft", "paper"])
def test_the_template_and_what_is_written_from_it_can_be_planned(tmp_path, monkeypatch, capsys, recipe):
    monkeypatch.chdir(tmp_path)
    main.main(["new", "mine", "--recipe", recipe])
    assert capsys.readouterr().out.endswith("hiddencost plan mine.yaml\n")
    call, text = plan(tmp_path, monkeypatch, tmp_path / "mine.yaml")
    protocol, image = call.study.protocol, call.study.datasets[0].image_size
    expected = {"draft": (112, 2, 104), "paper": (224, 100, 32)}[recipe]
    assert (protocol.canvas, protocol.epochs, image) == expected
    assert "54 runs = 3 backbones x 1 dataset x 3 methods x 2 budgets x 3 seeds" in text
    template, written = (ROOT / "studies/template.yaml").read_text(), (tmp_path / "mine.yaml").read_text()
    if recipe == "draft":
        assert written == template.replace("study: template", "study: mine").replace(
            "results/template/", "results/mine/"
        )
        # the paper's recipe is the draft's with the # taken away and put, and changes nothing else
        again = studies._with_recipe(studies._with_recipe(template, "paper"), "draft")
        assert again == template


def test_a_study_is_written_of_what_flags_say(tmp_path, monkeypatch, capsys):
    for name in ("train/a", "train/b", "test/a", "test/b", "all/a"):
        (tmp_path / "photos" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "studies").mkdir()
    words = "new two --checkpoint resnet50-v1 --sparsities 0.5,0.725 --seeds 0,1 --shots 1,full --methods ilm,lp"
    main.main([*words.split(), "--images", "photos", "--recipe", "paper"])
    study = yaml.safe_load((tmp_path / "studies/two.yaml").read_text())
    assert (study["study"], study["seeds"], study["shots"], study["methods"]) == (
        "two",
        [0, 1],
        [1, "full"],
        ["ilm", "lp"],
    )
    assert [
        (one["name"], one["checkpoint"], one.get("compression", {}).get("sparsity")) for one in study["backbones"]
    ] == [
        ("dense", "resnet50-v1", None),
        ("pruned50", "resnet50-v1", 0.5),
        ("pruned72-5", "resnet50-v1", 0.725),
        ("random", "resnet50-v1", None),
    ]
    assert study["datasets"] == [{"name": "images", "folder": str(tmp_path / "photos"), "image_size": 128}]
    assert study["protocol"]["canvas"] == 224
    main.main(["new", "three", "--images", "photos/all"])
    study = yaml.safe_load((tmp_path / "studies/three.yaml").read_text())
    assert study["datasets"][0] | {"test_share": 0.2, "image_size": 104} == study["datasets"][0]
    main.main(["new", "four", "--dataset", "svhn"])
    study = yaml.safe_load((tmp_path / "studies/four.yaml").read_text())
    assert study["datasets"] == [{"name": "svhn", "image_size": 104}]


def resnet18(zeros):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = torchvision.models.resnet18()
    weight = network.layer1[0].conv1.weight.data
    for one in (weight, network.layer4[1].conv2.weight.data) if zeros else ():
        one[: len(one) // 2] = 0
    return network.state_dict()


def test_what_snakemake_would_drop_behind_the_dashes_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text((ROOT / "config.yaml").read_text())
    for words in ("run --seeds 0 -- --config retry=true", "run config.yaml -- --configfile more.yaml"):
        with pytest.raises(SystemExit, match=r"^hiddencost: behind --: snakemake takes the last --config and"):
            main.main(words.split())


@pytest.mark.parametrize("zeros", [False, True])
def test_a_network_of_ones_own_is_told_with_the_lines_that_name_it(tmp_path, monkeypatch, capsys, zeros):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {f"module.{key}": one for key, one in resnet18(zeros).items()}}, "My net.pth")
    main.main(["add-checkpoint", "My net.pth"])
    told, _, lines = capsys.readouterr().out.partition("\n\n")
    what = r"pruned: 10\.\d% of the weights that pruning reaches are 0" if zeros else "dense"
    assert re.fullmatch(rf"{tmp_path}/My net\.pth: resnet18, {what}", told)
    config = yaml.safe_load((ROOT / "studies/template.yaml").read_text()) | yaml.safe_load(lines)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    call, _ = plan(tmp_path, monkeypatch, tmp_path / "mine.yaml")
    own = call.study.backbone("my-net")
    assert (own.dense, len(call.study.backbones)) == (("resnet18-v1", 2) if zeros else (None, 1))
    assert call.checkpoints[own.checkpoint].architecture == "resnet18"


def test_a_file_of_no_network_that_is_known_is_told_in_a_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"a.weight": torch.ones(3, 3, 1, 1)}, "net.pth")
    with pytest.raises(
        SystemExit, match=r"^hiddencost: .*net\.pth: no architecture of torchvision over 1000 classes has its 9 param"
    ):
        main.main(["add-checkpoint", "net.pth"])
    with pytest.raises(SystemExit, match=r"^hiddencost: .*net\.pth: .*; expected the keys of resnet18"):
        main.main(["add-checkpoint", "net.pth", "--architecture", "resnet18"])

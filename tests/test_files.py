import os
import subprocess
import sys
from pathlib import Path

import pytest

from hiddencost import files


def test_atomic_leaves_the_old_file_or_the_whole_new_one(tmp_path):
    path = tmp_path / "deep" / "result.csv"
    with files.atomic(path) as temporary:
        temporary.write_text("one")

    def fail():
        with files.atomic(path) as temporary:
            temporary.write_text("half of tw")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "one"
    assert [entry.name for entry in path.parent.iterdir()] == ["result.csv"]


def test_a_killed_writer_leaves_no_file_under_the_name(tmp_path):
    path = tmp_path / "result.csv"
    code = f"""
import os, signal
from hiddencost.files import atomic
with atomic({str(path)!r}) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code])
    assert done.returncode == -9
    assert not path.exists()


def test_files_have_the_permissions_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        files.write_json(tmp_path / "a.json", {})
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == 0o640


def test_canonical_does_not_depend_on_the_order_of_keys_and_refuses_nan():
    assert (
        files.canonical({"b": 1, "a": [1, 2.5]}) == files.canonical({"a": [1, 2.5], "b": 1}) == '{"a":[1,2.5],"b":1}'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.canonical(float("nan"))


AWAY = {
    "nothing": lambda: "file",
    "a file of a folder that is gone": lambda: "folder/file",
    "a file of a folder that is a file": lambda: Path("folder").touch() or "folder/file",
    "an empty mount point": lambda: Path("folder").mkdir() or "folder",
    "a link to a disk that is away": lambda: Path("link").symlink_to("disk/file") or "link",
}
HERE = {
    "a file": lambda: Path("file").touch() or "file",
    "a folder": lambda: Path("folder/inner").mkdir(parents=True) or "folder",
    "a link to itself": lambda: Path("link").symlink_to("link") or "link",
    "a file behind a link to itself": lambda: Path("link").symlink_to("link") or "link/file",
    "a name that is too long": lambda: "x" * 5000,
    "a name that has a zero": lambda: "x\0",
}


@pytest.mark.parametrize(
    ("made", "away"),
    [*((made, True) for made in AWAY.values()), *((made, False) for made in HERE.values())],
    ids=[*AWAY, *HERE],
)
def test_what_is_gone_is_away_and_what_cannot_be_read_is_not(made, away, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.is_away(made()) == away

import os
import subprocess
import sys

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

"""What the one reader of YAML makes of a file: a table, and a fuzz."""

import json
import math
import os
import re
import subprocess
import sys

import pytest
import yaml
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from hiddencost import yaml_file
from hiddencost.jobs.call import read_config
from hiddencost.messages import StudyError
from hiddencost.study.load import load_study

CONFIG = (ROOT / "config.yaml").read_bytes()
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9))
MERGED_BOMB = "a0: &a0 {x: 1}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 10)}]}}\n" for i in range(1, 9)
)

READ = {
    "1e-3 is a number": ("a: 1e-3\nb: 5E4\nc: 1.\nd: .5", {"a": 0.001, "b": 5e4, "c": 1.0, "d": 0.5}),
    "texts that YAML 1.1 reads otherwise": (
        "a: no\nb: on\nc: 2024-01-01\nd: 1:30\ne: 1_000",
        {"a": "no", "b": "on", "c": "2024-01-01", "d": "1:30", "e": "1_000"},
    ),
    "plain values": (
        "a: true\nb: ~\nc:\nd: -3\ne: 0x1F\nf: '010'\ng: -.inf",
        {"a": True, "b": None, "c": None, "d": -3, "e": 31, "f": "010", "g": -math.inf},
    ),
    "an alias, and a merge": (
        "a: &x {b: 1}\nc: {<<: *x, d: 2}\ne: *x",
        {"a": {"b": 1}, "c": {"b": 1, "d": 2}, "e": {"b": 1}},
    ),
    "a mark of the encoding": ("\ufeffa: 1", {"a": 1}),
    "lines of Windows": ("a: 1\r\nb: é\r\n", {"a": 1, "b": "é"}),
    "JSON": ('{"a":\n\t[1, "b"]}', {"a": [1, "b"]}),
}
REFUSED = {
    "a key twice": ("a: 1\nb: 2\na: 3", "line 3: the key 'a' stands in line 1, too; expected it once"),
    "a key twice, within": ("a:\n  - {b: 1, b: 1}", "line 2: the key 'b' stands in line 2, too"),
    "octal, or not": ("a: 010", "line 1: 010 is octal to some readers of YAML, and decimal to others; expected"),
    "a number beyond others": ("a: 9223372036854775808", "line 1: 9223372036854775808 is out of bounds; expected an"),
    "an endless number": ("a: 1" + "0" * 400, "line 1: a number of 401 characters; expected 40 at most"),
    "a longer one": ("a: 1" + "0" * 5000, "line 1: a number of 5001 characters; expected 40 at most"),
    "aliases of aliases": (BOMB, "it has more than 100,000 values, with what aliases stand for"),
    "merges of merges": (MERGED_BOMB, "it has more than 100,000 values, with what aliases stand for"),
    "an alias within itself": ("a: &a [*a]", "values, with what aliases stand for, are nested more than 50 deep"),
    "depth": ("a: " + 100_000 * "[", "line 1: values are nested more than 50 deep"),
    "size": (b"#" * 1_000_001, "it has more than 1,000,000 bytes; expected a study"),
    "UTF-16": ("a: 1".encode("utf-16"), "its encoding is UTF-16; expected UTF-8"),
    "Latin-1": ("a: 1\nb: é".encode("latin-1"), "line 2: the byte 0xe9 is not UTF-8; expected UTF-8"),
    "a bracket": ("a: 1\nb: [}", "line 2: not YAML: did not find expected node content, while parsing a"),
    "a tab": ("a:\n\tb: 1", "line 2: not YAML: found character that cannot start any token, while"),
    "a control character": ("a: 1\nb: \x07", "line 2: not YAML: control characters are not allowed"),
    "an alias of nothing": ("a: *x", "line 1: not YAML: found undefined alias"),
    "two documents": ("a: 1\n---\nb: 1", "line 2: not YAML: but found another document"),
    "code": ("a: !!python/object:os.system x", "line 1: the tag 'python/object:os.system' does not go with"),
    "another kind than its tag": ("a: !!int [1]", "line 1: the tag 'int' does not go with its value"),
    "a key that is a number": ("1: a", "line 1: the key '1' is no text; expected a name (in quotes, if it is one)"),
    "a key that is a list": ("? [a]\n: 1", "line 1: the key a sequence is no text"),
    "nothing": ("# a: 1", "it is empty; expected keys, with a colon and a value behind each"),
    "a list": ("- a", "a sequence; expected keys, with a colon and a value behind each"),
    "a word": ("a", "'a'; expected keys, with a colon and a value behind each"),
}  # fmt: skip


def written(folder, content):
    path = folder / "mine.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(("content", "expected"), READ.values(), ids=READ)
def test_a_file_is_read_as_editors_read_it(tmp_path, content, expected):
    assert yaml_file.read(written(tmp_path, content)) == expected


@pytest.mark.parametrize(("content", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_plain_mapping_is_refused_in_a_line(tmp_path, content, expected):
    with pytest.raises(StudyError) as caught:
        yaml_file.read(written(tmp_path, content), "mine.yaml")
    assert str(caught.value).startswith(("mine.yaml: ", "mine.yaml, line "))
    assert expected in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_is_no_file_is_refused_in_a_line(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, expected in (
        (tmp_path / "absent.yaml", "No such file or directory; expected a YAML file"),
        (tmp_path, "it is a folder; expected a file"),
        (tmp_path / "pipe", "it is a device or a pipe; expected a file"),
        (tmp_path / "a\0b", "embedded null byte; expected a YAML file"),
    ):
        with pytest.raises(StudyError) as caught:
            yaml_file.read(path)
        assert str(caught.value) == f"{path}: {expected}".replace("\0", r"\x00")


FILES = [ROOT / "config.yaml", *(ROOT / "studies").glob("*.yaml"), *(ROOT / "src").rglob("catalog/*.yaml")]


@pytest.mark.parametrize("file", FILES, ids=lambda path: path.stem)
def test_the_files_here_say_the_same_to_other_readers(file):
    assert yaml_file.read(file) == yaml.load(file.read_bytes(), Loader=yaml.CSafeLoader)


def test_a_study_is_of_several_files_and_of_what_the_command_line_says(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text("seeds: [0, 1]\nprotocol: {epochs: 2, canvas: 32}")
    second.write_text("seeds: [2]\nprotocol: {epochs: 1e1}")
    config = read_config([first, second], {"study": "told", "protocol": {"gamma": 0.1}, "offline": "true"})
    protocol = {"epochs": 10.0, "canvas": 32, "gamma": 0.1}
    assert config == {"seeds": [2], "protocol": protocol, "study": "told", "offline": "true"}


def test_what_the_command_line_says_within_a_value_is_of_the_types_that_it_is_of_in_a_study(tmp_path):
    (tmp_path / "study.yaml").write_text("protocol: {epochs: 2, canvas: 32}\nseeds: [0]")
    # as Snakemake reads `--config seeds=[0,1] 'protocol={epochs: 3, shuffle: false}' 'figures={title: A b}' ...`
    told = {"seeds": ["0", "1"], "protocol": {"epochs": "3", "shuffle": "false"}, "figures": {"title": "A b"}}
    config = read_config([tmp_path / "study.yaml"], told | {"study": "new", "shots": ["1e1", "full"]})
    assert config == {
        **{"seeds": [0, 1], "shots": [10.0, "full"], "study": "new", "figures": {"title": "A b"}},
        "protocol": {"epochs": 3, "canvas": 32, "shuffle": False},
    }
    assert type(config["protocol"]["epochs"]) is int
    with pytest.raises(StudyError, match=r"^--config, line 1: 007 is octal to some readers"):
        read_config([], {"seeds": ["007"]})


@pytest.mark.parametrize("flag", ["offline", "retry", "partial"])
def test_a_flag_of_a_call_is_refused_within_a_study(tmp_path, monkeypatch, flag):
    monkeypatch.chdir(tmp_path)
    path = written(tmp_path, CONFIG + f"\n{flag}: true\n".encode())
    with pytest.raises(StudyError) as caught:
        read_config([path], {})
    assert str(caught.value) == (
        f"mine.yaml: {flag}: it is of a call, not of a study; expected --config {flag}=true instead"
    )


def test_files_that_snakemake_cannot_read_are_told_by_a_command(tmp_path):
    file = str(written(tmp_path, CONFIG.decode().encode("utf-16")))
    # a locale that is not UTF-8's, as on a bare cluster node
    bare = os.environ | {
        "PYTHONPATH": str(ROOT / "src"),
        "LC_ALL": "C",
        "PYTHONUTF8": "0",
        "PYTHONCOERCECLOCALE": "0",
    }
    told = subprocess.run(
        [sys.executable, "-m", "hiddencost.study", str(ROOT / "config.yaml"), file],
        env=bare, capture_output=True, text=True,
    )  # fmt: skip
    assert told.stdout == f"{ROOT / 'config.yaml'}: the study quickstart\n"
    assert told.stderr == f"{file}: its encoding is UTF-16; expected UTF-8\n"
    assert told.returncode == 1


PIECES = [
    *(b"a: 1\n", b"  - [", b"]", b"{", b"}", b"&x ", b"*x", b"<<: *x\n", b"\t", b"'", b'"', b"!!int ", b"? ", b": "),
    *(b"|\n", b">-\n", b"1e-3", b"010", b"9" * 100, b"~", b".nan", b"\xff", b"\x00", b"\xef\xbb\xbf", b"\r"),
    *(b"---\n", b"%YAML 1.1\n", b"#", b",", b"\n"),
]
EDITS = st.lists(
    st.tuples(
        st.integers(0, len(CONFIG)), st.integers(0, 12), st.one_of(st.sampled_from(PIECES), st.binary(max_size=3))
    ),
    min_size=1,
    max_size=4,
)


@given(EDITS)
def test_a_damaged_study_is_read_whole_or_refused_in_lines(tmp_path_factory, edits):
    content = CONFIG
    for place, removed, added in edits:
        content = content[:place] + added + content[place + removed :]
    path = written(tmp_path_factory.getbasetemp(), content)
    try:
        read = yaml_file.read(path, "mine.yaml")
        plain = json.dumps(read, ensure_ascii=False)
        if not re.search("NaN|Infinity", plain):
            assert yaml_file.read(written(path.parent, plain)) == read
        load_study(read, "mine.yaml")
    except StudyError as error:
        lines = str(error).splitlines()
        assert all(line.startswith(("mine.yaml: ", "mine.yaml, line ")) for line in lines)


@given(st.data())
def test_a_line_that_is_doubled_is_told(tmp_path_factory, data):
    lines = CONFIG.decode().splitlines()
    keys = [number for number, line in enumerate(lines) if line and line[0] not in " #-" and ": " in line]
    number = data.draw(st.sampled_from(keys))
    place = data.draw(st.sampled_from([*keys, len(lines)]))
    path = written(tmp_path_factory.getbasetemp(), "\n".join([*lines[:place], lines[number], *lines[place:]]))
    with pytest.raises(StudyError, match=f"the key '{lines[number].partition(':')[0]}' stands in line"):
        yaml_file.read(path)

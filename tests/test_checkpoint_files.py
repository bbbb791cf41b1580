"""What the one reader of checkpoints makes of a file: a table of those that it refuses, bounds, and a fuzz."""

import argparse
import enum
import io
import os
import pickle
import re
import struct
import sys
import time
import uuid
import zipfile
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest
import safetensors.torch
import torch
from conftest import Attack
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from hiddencost import catalog
from hiddencost.files import sha256_file, write_json
from hiddencost.networks.checkpoint import import_checkpoint
from hiddencost.networks.formats import unpickle
from hiddencost.networks.formats.reading import read_state_dict
from hiddencost.networks.manifest import Manifest

STATE = OrderedDict(
    {
        "weight": torch.arange(24.0).reshape(4, 3, 2, 1),
        "bias": torch.arange(4.0),
        "count": torch.tensor(3),
        "narrow": torch.ones(3, 2).half().T,
        "empty": torch.ones(0, 3),
    }
)


def saved(content, **how):
    torch.save(content, buffer := io.BytesIO(), **how)
    return buffer.getvalue()


def parts_of(content):
    """The parts of a file of torch.save, by name."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def zipped(parts):
    with zipfile.ZipFile(buffer := io.BytesIO(), "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part, zipfile.ZIP_DEFLATED if len(part) > 1e6 else zipfile.ZIP_STORED)
    return buffer.getvalue()


def changed(part, change, content=STATE):
    """A file of torch.save with another part, its checksum right."""
    parts = parts_of(saved(content))
    name = next(name for name in parts if name.endswith(part))
    return zipped(parts | {name: change(parts[name])})


def replaced(old, new):
    def change(content):
        assert content.count(old) >= 1
        return content.replace(old, new, 1)

    return change


def described(pickle_):
    """A file of torch.save that describes something else."""
    return changed("data.pkl", lambda _: pickle_)


@pytest.mark.parametrize(
    "how", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}, {"pickle_protocol": 5}]
)
def test_files_are_read_as_torch_load_reads_them(how, tmp_path):
    shared = torch.arange(10.0)
    tensors = STATE | {
        "part": shared[2:6],
        "step": shared[::2],
        "tied": STATE["weight"],
        "parameter": nn.Parameter(shared),
        "told": torch.ones(3),
    }
    tensors["told"].source = "a script"  # PyTorch keeps attributes
    beside = {
        "epoch": 3, "rates": [np.float64(0.1)], "text": "ü", "bytes": b"\x00", "set": {1}, "none": (None, 2**70),
        "counts": Counter("ab"), "lists": defaultdict(list, {"a": [1]}), "args": argparse.Namespace(path=Path("a")),
        "version": torch.__version__, "class": nn.Conv2d, "array": np.ones(2),
        "method": OneCycleLR._annealing_cos, "nested": {("a", 0): {1: (2, [3]), 2: b""}, None: None, 0.5: 1},
        "when": [datetime.now(UTC), date(2026, 1, 1), timedelta(1)], "last": deque([1, 2], maxlen=3),
        "plain": (1j, range(3), slice(1, 2), frozenset("a"), Decimal(1), Fraction(1, 2), uuid.uuid4()),
        "settings": SimpleNamespace(lr=0.1),
    }  # fmt: skip
    (tmp_path / "file.pth").write_bytes(saved({"state_dict": tensors, **beside}, **how))
    weights, masks = read_state_dict(tmp_path / "file.pth")
    expected = torch.load(tmp_path / "file.pth", weights_only=False)["state_dict"]
    assert masks == {}
    assert list(weights) == list(expected)
    for key, tensor in expected.items():
        assert torch.equal(weights[key], tensor.float() if tensor.is_floating_point() else tensor), key


@pytest.mark.parametrize("how", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_objects_of_one_s_own_beside_the_weights_are_not_read_and_nothing_of_them_is_run(
    how, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    beside = {"kind": Kind.OWN, "kinds": {Kind.OWN: [Kind.OWN]}, "settings": Settings(), "point": Point()}
    beside |= {"dict": Own(a=Kind.OWN), "list": Listed([1]), "holding a tensor": Settings(rate=torch.ones(1))}
    beside |= {"method": Own(a=1).keys, "class": Settings}
    beside |= {"model_state_dict": {}}  # holds nothing
    (tmp_path / "file.pth").write_bytes(saved({"model": STATE, **beside}, **how))
    (tmp_path / "other.pth").write_bytes(saved({"state_dict": STATE, "model": Settings()}, **how))
    monkeypatch.setitem(sys.modules, __name__, None)  # no class of it can be found
    weights, _ = read_state_dict(tmp_path / "file.pth")
    assert list(weights) == list(STATE)
    assert all(torch.equal(weights[key], STATE[key].float()) for key in STATE)
    assert f"beside the weights, and not read: kind ({__name__}.Kind), settings (" in caplog.text
    assert list(read_state_dict(tmp_path / "other.pth").weights) == list(STATE)  # which come before what is not read


def bomb(size):
    """A part of zeros, compressed a thousandfold."""
    return changed("data/0", lambda _: bytes(size), {"w": torch.zeros(1)})


def huge(older):
    """A tensor that claims 10^14 numbers."""
    how = {"_use_new_zipfile_serialization": not older}
    content = saved({"w": torch.ones(77)}, **how)
    many = b"\x8a\x08" + struct.pack("<q", 10**14)
    assert content.count(b"KM") == 2
    if older:
        return content.replace(b"KM", many).replace(struct.pack("<q", 77), struct.pack("<q", 10**14))
    return changed("data.pkl", lambda part: part.replace(b"KM", many), {"w": torch.ones(77)})


def holding_itself():
    content = {}
    content["model"] = content
    return saved(content)


def sparse():
    weight = torch.eye(3).to_sparse()
    with torch.sparse.check_sparse_tensor_invariants(False):
        return saved({"w": weight})


class Kind(enum.Enum):
    OWN = 1


@dataclass
class Settings:
    rate: float = 0.1
    kind: Kind = Kind.OWN


class Point(NamedTuple):
    x: int = 1


class Own(OrderedDict):
    pass


class Listed(list):
    pass


class Quantity(torch.Tensor):
    pass


def long_key_many_times():
    return described(b"\x80\x02(" + b"N" * 100_000 + b"tq\x000](" + b"}h\x00Ns" * 1000 + b"e.")


def keys_of_one_hash():
    keys = (b"\x8a\x0a" + ((2**61 - 1) * place).to_bytes(10, "little") for place in range(50_000))
    return described(b"\x80\x02}(" + b"".join(key + b"N" for key in keys) + b"u.")


NAMES = b"\x80\x04\x8c\x01a\x8c\x01a\x93q\x00" + b"h\x00h\x00\x93q\x00" * 40 + b"."
LONG_NAME = b"\x80\x04X" + struct.pack("<I", 10**5) + b"a" * 10**5 + b"q\x00](" + b"h\x00h\x00\x93" * 2000 + b"e."
DEEP = b"\x80\x02}(" + b")" + b"\x85" * 50_000 + b"K\x01u."  # a tuple of tuples, as a key
TWICE = b"\x80\x02}(X\x01\x00\x00\x00aK\x01X\x01\x00\x00\x00aK\x02u."
HEADER = struct.pack("<Q", 10**14)
ENTRY = b'{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
EIGHT_BITS = ENTRY.replace(b'"F32"', b'"F8_E4M3"').replace(b",8]", b",2]")
DAMAGED = "not a file of weights, or a damaged one: "
CALLS = DAMAGED + "it calls "
REFUSED = {
    "sparse": (sparse, "w is sparse; expected what its to_dense() returns"),
    "meta": (lambda: saved({"w": torch.ones(2, device="meta")}), "w is of the device meta, without values"),
    "quantised": (
        lambda: saved({"w": torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8)}),
        "w is quantised; expected what its dequantize() returns",
    ),
    "of eight bits": (
        lambda: saved({"w": torch.ones(2).to(torch.float8_e4m3fn)}),
        "w has a type that is not read; expected floats of 16 to 64 bits or integers",
    ),
    "complex": (lambda: saved({"w": torch.ones(2) * 1j}), "w has a type that is not read"),
    "complex, in the older format": (
        lambda: saved({"w": torch.ones(2) * 1j}, _use_new_zipfile_serialization=False),
        "a tensor of it has a type that is not read",
    ),
    "expanded": (
        lambda: saved({"w": torch.ones(1).expand(10**14)}),
        "w shows 1 numbers as 100,000,000,000,000; expected one of its own for each, as contiguous() makes them",
    ),
    "of many claims": (lambda: huge(older=False), "with w its tensors claim 100,000,000,000,000 numbers"),
    "of many claims, older": (lambda: huge(older=True), DAMAGED + "it ends before its numbers do"),
    "a bomb": (lambda: bomb(1 << 26), "its part data/0 is compressed, as torch.save writes none"),
    "many views of one": (
        lambda: saved(dict.fromkeys(map(str, range(1000)), torch.ones(1000))),
        "with 39 its tensors claim 40,000 numbers, more than a file of its size holds",
    ),
    "a flipped bit": (
        lambda: saved(STATE).replace(STATE["weight"].numpy().tobytes(), STATE["weight"].neg().numpy().tobytes()),
        "Bad CRC-32 for file 'archive/data/0'",
    ),
    "a part less": (
        lambda: zipped({name: part for name, part in parts_of(saved(STATE)).items() if not name.endswith("data/1")}),
        DAMAGED + "\"There is no item named 'archive/data/1' in the archive\"",
    ),
    "a shorter part": (lambda: changed("data/0", lambda part: part[:-4]), "for weight it has 92 bytes, fewer than"),
    "a tensor beyond its numbers": (
        lambda: changed("data.pkl", replaced(b"QK\x00(K\x04K\x03", b"QK\x01(K\x04K\x03")),
        "weight reaches beyond the numbers that are stored for it",
    ),
    "big-endian": (lambda: changed("byteorder", lambda _: b"big"), "its numbers are big-endian; expected little"),
    "TorchScript": (
        lambda: zipped(parts_of(saved(STATE)) | {"archive/constants.pkl": b""}),
        "it is a TorchScript program; expected a file of torch.save(network.state_dict(), ...)",
    ),
    "a whole network": (lambda: saved(nn.Linear(2, 2)), CALLS + "torch.nn.modules.linear.Linear; expected"),
    "a call": (lambda: saved({"state_dict": STATE, "x": Attack("evil")}), CALLS + "posix.mkdir"),
    "a call of an attribute": (
        lambda: described(b"\x80\x02cbuiltins\ngetattr\ncos\npath\nX\x05\x00\x00\x00mkdir\x86R)R."),
        CALLS + "os.path.mkdir",
    ),
    "a call for memory": (lambda: described(b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R."), CALLS),
    "a state for what has none": (lambda: described(b"\x80\x02cos\nsystem\n}b."), "it gives a state to what has"),
    "a call of what is no name": (lambda: described(b"\x80\x02K\x01)R."), CALLS + "<class 'int'>"),
    "another object": (lambda: described(b"(S'ls'\nios\nsystem\n."), "its instruction INST is not of a state dict"),
    "a place of memory far away": (lambda: described(b"\x80\x02Nr\xff\xff\xff\xff."), "found none"),
    "a deep key": (lambda: described(DEEP), "; a tuple is no name of a tensor"),
    "a long key many times": (long_key_many_times, "alone or under state_dict_ema, model_ema, state_dict,"),
    "keys of one hash": (keys_of_one_hash, "; 0 is no name of a tensor"),
    "a name of names": (lambda: described(NAMES), "it names a class by what is no name"),
    "a long name many times": (lambda: described(LONG_NAME), "it names a class by what is no name"),
    "bytes of many claims": (
        lambda: b"\x80\x04\x8e" + struct.pack("<Q", 2**46) + b"x",
        DAMAGED + "expected 70368744177664 bytes in a bytes8, but only 1 remain",
    ),
    "a network of one's own": (lambda: saved(Settings()), f"; found an object of {__name__}.Settings"),
    "a weight of one's own": (lambda: saved(STATE | {"w": Settings()}), f"; 'w' is an object of {__name__}.Settings"),
    "a number of one's own": (lambda: saved(STATE | {"w": Kind.OWN}), f"; 'w' is an object of {__name__}.Kind"),
    "a state dict of one's own": (
        lambda: saved({"state_dict": Own(STATE)}),
        f"; 'state_dict' is an object of {__name__}.Own",
    ),
    "averages of one's own beside the last weights": (
        lambda: saved({"state_dict": STATE, "model_ema": Settings()}),
        f"'model_ema' is an object of {__name__}.Settings, which is not read; expected a dictionary of tensors or",
    ),
    "a state dict of one's own beside another": (
        lambda: saved({"state_dict": Own(STATE), "model": STATE}),
        f"'state_dict' is an object of {__name__}.Own, which is not read",
    ),
    "the same further in": (lambda: saved({"model": {"state_dict": Own(STATE), "model": STATE}}), "'state_dict' is"),
    "masks of one's own": (lambda: saved({"state_dict": STATE, "masks": Settings()}), "'masks' is an object of"),
    "a tensor of numbers of one's own": (
        lambda: described(b"\x80\x02}U\x01wctorch._utils\n_rebuild_tensor_v2\n(cmine\nNumbers\n)RK\x00))tRs."),
        DAMAGED + "it describes a tensor without a size",
    ),
    "a call by one's own": (
        lambda: described(b"\x80\x02cmine\napply\ncos\nsystem\nX\x02\x00\x00\x00ls\x85R\x85R."),
        CALLS + "os.system",
    ),
    "a module within a package of Python's": (
        lambda: described(b"\x80\x02cos.path\nmkdir\n)R."),
        CALLS + "os.path.mkdir",
    ),
    "a call of PyTorch": (lambda: described(b"\x80\x02ctorch.hub\nload\n)R."), CALLS + "torch.hub.load"),
    "negative": (
        lambda: saved({"w": (torch.ones(2) * 1j).conj().imag}),
        "w has a negative or conjugate bit; expected what resolve_neg() or resolve_conj() returns",
    ),
    "of another class": (
        lambda: saved({"w": torch.ones(2).as_subclass(Quantity)}),
        f"w is of the class {__name__}.Quantity; expected a tensor of PyTorch's own",
    ),
    "a key twice": (lambda: described(TWICE), DAMAGED + "it has the key 'a' twice"),
    "itself": (holding_itself, "expected a state dict {name: tensor}, alone or under state_dict_ema"),
    "arrays": (lambda: pickle.dumps({"w": np.ones(2)}), "not a file of torch.save, and none of safetensors"),
    "npz": (lambda: zipped({"w.npy": b""}), "a zip file, but none of torch.save: that has a folder with data.pkl"),
    "nothing": (lambda: b"", DAMAGED + "it begins with b''"),
    "a page": (lambda: b"<html><body>404", DAMAGED + "it begins with b'<html><body>404'"),
    "safetensors of many claims": (lambda: HEADER + b"{}", "not a safetensors file, or a damaged one"),
    "safetensors cut short": (lambda: struct.pack("<Q", len(ENTRY)) + ENTRY + bytes(4), "not a safetensors file, or"),
    "safetensors of eight bits": (
        lambda: struct.pack("<Q", len(EIGHT_BITS)) + EIGHT_BITS + bytes(2),
        "w is of torch.float8_e4m3fn; expected floats of 16 to 64 bits or integers",
    ),
    "safetensors of nothing": (lambda: struct.pack("<Q", 2) + b"{}", "no tensor is in it"),
}  # fmt: skip


def most_memory():
    """The most memory that this process had at once since it was asked last, in bytes; None where none tells."""
    try:
        most = int(re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())[1]) * 1024
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return None
    return most


@pytest.mark.parametrize(("make", "outcome"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_state_dict_is_refused_in_a_line(make, outcome, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "file.pth"
    path.write_bytes(make())
    most_memory()
    before, started = most_memory(), time.monotonic()
    with pytest.raises(ValueError, match=r"file\.pth: ") as caught:
        read_state_dict(path)
    assert time.monotonic() - started < 10
    most = most_memory()
    assert outcome in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    assert os.listdir() == ["file.pth"]
    if most is None:
        pytest.skip("refused in a line; how much memory it took cannot be told here")
    assert most - before < 100e6


def test_what_is_no_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "gone"):
        with pytest.raises(ValueError, match=r"no file; expected one of torch\.save or safetensors"):
            read_state_dict(path)


WITHOUT_END = {
    "instructions": b"\x80\x02" + b"N0" * 1000 + b"}.",
    "pairs many times": b"\x80\x02](X\x01\x00\x00\x00aN\x86X\x01\x00\x00\x00bN\x86eq\x000]("
    + b"ccollections\nOrderedDict\nh\x00\x85R" * 200 + b"e.",
}  # fmt: skip


@pytest.mark.parametrize("described_as", WITHOUT_END.values(), ids=WITHOUT_END)
def test_a_pickle_without_end_is_left(described_as, tmp_path, monkeypatch):
    monkeypatch.setattr(unpickle, "MOST_INSTRUCTIONS", 1000)
    (tmp_path / "file.pth").write_bytes(described(described_as))
    with pytest.raises(ValueError, match=r"file\.pth: .*it has more than 1,000 instructions"):
        read_state_dict(tmp_path / "file.pth")


def test_an_error_of_the_machine_is_none_of_the_file(tmp_path, monkeypatch):
    (tmp_path / "file.pth").write_bytes(saved(STATE))

    def fail(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(zipfile.ZipFile, "read", fail)
    with pytest.raises(OSError, match="Input/output error"):
        read_state_dict(tmp_path / "file.pth")


def test_a_key_of_a_file_is_told_short_and_printable(tmp_path):
    path = tmp_path / "file.pth"
    torch.save({"\x1b[2J\n" + "a" * 10**6: torch.ones(1)}, path)
    report = {"failed": None, "files": {"weights": {"path": str(path), "sha256": sha256_file(path)}}}
    write_json(tmp_path / "fetched.json", report)
    entry = catalog.checkpoint("mobilenetv2").model_copy(update={"architecture": "resnet20_cifar"})
    import_checkpoint("mobilenetv2", entry, tmp_path / "fetched.json", tmp_path / "out")
    reason = Manifest.read(tmp_path / "out").failed
    assert reason.startswith(f"{path}: missing key bn1.bias")
    assert len(reason) < 2000
    assert reason.isprintable()


# Fuzz


FILES = {
    "safetensors": safetensors.torch.save({key: tensor.contiguous() for key, tensor in STATE.items()}),
    "newer": saved(STATE),
    "older": saved({"model": STATE, "lr": np.float64(1)}, _use_new_zipfile_serialization=False),
}
PIECES = [
    b"\x00",
    b"\xff",
    b".",
    b"R",
    b"b",
    b"(",
    b"u",
    b"Q",
    b"K\x07",
    b"\x8a\x08" + b"\xff" * 7 + b"\x7f",
    b"cos\nsystem\n",
]
EDITS = st.lists(
    st.tuples(st.floats(0, 1), st.none() | st.integers(0, 9), st.sampled_from(PIECES) | st.binary(max_size=3)),
    min_size=1,
    max_size=3,
)


def edited(content, edits):
    for share, removed, added in edits:
        place = int(share * len(content))
        removed = len(added) if removed is None else removed  # written over
        content = content[:place] + added + content[place + removed :]
    return content


def read_or_refused(path, content):
    """The tensors of a file; None where it is refused."""
    path.write_bytes(content)
    try:
        return read_state_dict(path).weights
    except ValueError as error:
        line = str(error)
    assert line.startswith(f"{path}: ")
    assert len(line.splitlines()) == 1
    return None


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file_is_the_same_network_or_refused(name, tmp_path):
    were_read = []

    @given(edits=EDITS)
    def check(edits):
        tensors = read_or_refused(tmp_path / "fuzz.pth", edited(FILES[name], edits))
        were_read.append(tensors is not None)
        if tensors is not None and name == "newer":  # the others have no checksums
            assert tensors.keys() == STATE.keys()
            for key, tensor in tensors.items():
                assert tensor.shape == STATE[key].shape
                assert torch.equal(tensor, STATE[key].to(tensor.dtype))

    check()
    assert 0 < sum(were_read) < len(were_read)


def test_what_a_file_describes_is_read_or_refused(tmp_path):
    were_read = []

    @given(edits=EDITS)
    def check(edits):
        content = changed("data.pkl", lambda part: edited(part, edits))
        were_read.append(read_or_refused(tmp_path / "fuzz.pth", content) is not None)

    check()
    assert 0 < sum(were_read) < len(were_read)

"""Files of torch.save: tensors of them, held against their checksums and sizes.

torch.load allocates what a file claims, and holds no part against its checksum. Here memory and time are bounded by
the size of the file.
"""

import errno
import os
import zipfile
from collections.abc import Callable, Mapping
from io import BufferedReader, BytesIO, FileIO
from math import prod
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from hiddencost.messages import one_line
from hiddencost.networks.formats.unpickle import OTHER_TYPE, ContentError, Machine, StoredTensor

MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of PyTorch before 1.6 (torch/serialization.py, _legacy_save)
PICKLE = b"\x80"  # what one begins with, from its protocol 2 on
NUMBERS_A_BYTE = 2  # of all tensors, for each byte of the file; more than 1 only where some share their numbers


def read_tensors(path: Path, choose: Callable[[Any], Mapping[str, StoredTensor]]) -> dict[str, Tensor]:
    """Read tensors of a file of torch.save, of PyTorch's newer format (zip) or its older.

    Args:
        path: of the file.
        choose: of what the file describes, see `Machine.run`, it returns the tensors that are wanted, by name; it may
            raise ContentError.

    Returns:
        The tensors by name, on the CPU.

    Raises:
        ValueError: in one line, with the file: it is no such file, is damaged, calls something, claims more than it
            holds, or a tensor that is wanted has no plain values.
    """
    try:
        with _File(FileIO(path)) as file:
            is_zip = file.read(4) == b"PK\x03\x04"
            file.seek(0)
            content, part = _open_zip(file) if is_zip else _open_older(file)
            return _tensors(choose(content), part, path.stat().st_size)
    except ContentError as error:
        raise ValueError(f"{path}: {error}") from error
    except MemoryError:  # as claims are bounded, it is of this machine, not of the file
        raise
    except Exception as error:  # what a damaged file leads to can be anything
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # a place before the beginning
            raise  # of this machine, too
        reason = one_line(error) or type(error).__name__
        raise ValueError(f"{path}: not a file of weights, or a damaged one: {reason}") from error


class _File(BufferedReader):
    """Reads no more than there is: for what a file claims to hold, memory would be taken before a byte is read."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(size if size is None else min(size, os.fstat(self.fileno()).st_size))


Part = Callable[[str], bytearray]  # of a storage's key, its numbers


def _content(machine: Machine, stream: IO[bytes]) -> Any:
    try:
        return machine.run(stream)
    except ContentError as error:
        raise ContentError(f"not a file of weights, or a damaged one: {error}") from error


def _open_zip(file: IO[bytes]) -> tuple[Any, Part]:
    """Return what a file of PyTorch 1.6 or newer describes, and how its parts are read: each held against its
    checksum, and none unpacked, as torch.save packs none."""
    archive = zipfile.ZipFile(file)
    names = archive.namelist()
    roots = {name.removesuffix("data.pkl") for name in names if name.split("/")[1:] == ["data.pkl"]}
    if len(roots) != 1:
        raise ContentError("a zip file, but none of torch.save: that has a folder with data.pkl")
    (root,) = roots
    if len(set(names)) < len(names):
        raise ContentError("two parts of the file have one name")
    if f"{root}constants.pkl" in names:
        raise ContentError("it is a TorchScript program; expected a file of torch.save(network.state_dict(), ...)")

    def part(name: str) -> bytearray:
        info = archive.getinfo(f"{root}{name}")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise ContentError(f"its part {name} is compressed, as torch.save writes none")
        return bytearray(archive.read(info))

    if f"{root}byteorder" in names and part("byteorder") != b"little":
        raise ContentError("its numbers are big-endian; expected little-endian ones")
    return _content(Machine(), BytesIO(part("data.pkl"))), lambda key: part(f"data/{key}")


def _open_older(file: IO[bytes]) -> tuple[Any, Part]:
    """Return what a file of PyTorch before 1.6 describes, and how its parts are read, which have no checksums."""
    head = file.read(40)
    if head[:1] != PICKLE:
        raise ContentError(f"not a file of weights, or a damaged one: it begins with {head!r}")
    file.seek(0)
    if _content(Machine(), file) != MAGIC or _content(Machine(), file) != PROTOCOL:
        raise ContentError("not a file of torch.save, and none of safetensors")
    if _content(Machine(), file)["little_endian"] is not True:
        raise ContentError("its numbers are big-endian; expected little-endian ones")
    machine = Machine()
    content = _content(machine, file)
    places = {}
    for key in _content(Machine(), file):
        storage = machine.storages[key]
        if storage.dtype is None:
            raise ContentError("a tensor of it " + OTHER_TYPE)
        count = int.from_bytes(file.read(8), "little")
        if count != storage.count:
            raise ContentError(f"it has {count} numbers where it declares {storage.count}")
        start, size = file.tell(), count * storage.dtype.itemsize
        if start + size > file.seek(0, 2):
            raise ContentError("not a file of weights, or a damaged one: it ends before its numbers do")
        places[key] = (start, size)
        file.seek(start + size)

    def part(key: str) -> bytearray:
        start, size = places[key]
        file.seek(start)
        return bytearray(file.read(size))

    return content, part


def _tensors(chosen: Mapping[str, StoredTensor], part: Part, file_size: int) -> dict[str, Tensor]:
    buffers: dict[str, bytearray] = {}  # several tensors may be of one
    tensors, numbers = {}, 0
    for name, stored in chosen.items():
        if stored.problem or stored.storage is None or stored.storage.dtype is None:
            raise ContentError(f"{name} {stored.problem or OTHER_TYPE}")
        storage, dtype, count = stored.storage, stored.storage.dtype, prod(stored.size)
        numbers += count
        last = stored.offset + sum((size - 1) * step for size, step in zip(stored.size, stored.stride, strict=True))
        if numbers > NUMBERS_A_BYTE * file_size and count <= storage.count:
            raise ContentError(
                f"with {name} its tensors claim {numbers:,} numbers, more than a file of its size holds"
            )
        if count > storage.count:
            raise ContentError(
                f"{name} shows {storage.count:,} numbers as {count:,}; expected one of its own for each, as "
                "contiguous() makes them"
            )
        if count and last >= storage.count:
            raise ContentError(f"{name} reaches beyond the numbers that are stored for it")
        if storage.key not in buffers:
            buffers[storage.key] = part(storage.key)
        buffer, start = buffers[storage.key], storage.start * dtype.itemsize
        if start + storage.count * dtype.itemsize > len(buffer):
            raise ContentError(f"for {name} it has {len(buffer):,} bytes, fewer than it declares")
        if count:
            values = torch.frombuffer(buffer, dtype=dtype, count=storage.count, offset=start)
            tensors[name] = torch.as_strided(values, stored.size, stored.stride, stored.offset)
        else:
            tensors[name] = torch.empty(stored.size, dtype=dtype)
    return tensors

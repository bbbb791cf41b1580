"""TensorFlow's checkpoints, version 2, in an archive, without TensorFlow: NAME.index and NAME.data-SSSSS-of-NNNNN.

The index is a table of LevelDB: blocks of keys and values in order, behind each its type and its checksum, and in the
last 48 bytes where the index of the blocks is (tensorflow/core/lib/io/format.cc, block.cc, table_builder.cc). Its
values are protocol buffers: under the key "" the BundleHeaderProto, under the name of each variable its
BundleEntryProto (tensorflow/core/protobuf/tensor_bundle.proto). The data files hold the plain bytes of the tensors
(tensorflow/core/util/tensor_bundle/tensor_bundle.cc). TensorFlow compresses no block and checks all checksums; so
does this. Memory and time are bounded by the size of the files, whatever they claim.
"""

from collections.abc import Callable, Iterator
from math import prod
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import google_crc32c
import torch
from torch import Tensor

from hiddencost.messages import one_line
from hiddencost.networks.formats.archive import unpacked

FOOTER, MAGIC = 48, 0xDB4775248B80FB57  # bytes; what the last eight of them say
TRAILER = 5  # bytes behind a block: its type and its checksum
PLAIN, SNAPPY = 0, 1  # types of blocks
LONGEST_KEY = 256  # bytes; RigL's longest has less than 100
KEYS = 8  # bytes of keys for each of an index, at most: a key may repeat the one before it, which takes three bytes
DIMENSIONS = 8  # of a tensor, at most; a convolution's weights have 4
VERSION = 1  # of the format of bundles, the only one there is
# tensorflow/core/framework/types.proto
DTYPES = {
    **{1: torch.float32, 2: torch.float64, 3: torch.int32, 4: torch.uint8, 5: torch.int16, 6: torch.int8},
    **{9: torch.int64, 10: torch.bool, 14: torch.bfloat16, 19: torch.float16},
}
Fields = dict[int, list[int | bytes]]  # of a protocol buffer, by their numbers


class _BundleError(Exception):
    """What is wrong in a checkpoint, without the path of its archive."""


class _Entry(NamedTuple):
    """A variable, as the index describes it: `dtype` of types.proto, `offset` and `size` in bytes."""

    dtype: int
    shape: list[int]
    shard: int
    offset: int
    size: int
    checksum: int
    is_sliced: bool


def read_archive(path: Path, is_wanted: Callable[[str], bool]) -> tuple[dict[str, Tensor], list[str]]:
    """Read variables of the one checkpoint in a .tar or .tar.gz.

    Args:
        path: of the archive.
        is_wanted: of a variable's name, whether it is to be read.

    Returns:
        The variables that are wanted by name, in TensorFlow's order of dimensions, and the names of the others.

    Raises:
        ValueError: in one line, with `path`: the archive is damaged, has not one index or lacks a data file, a
            checksum is wrong, or what is wanted is compressed, in slices or no plain numbers.
    """
    files = unpacked(path, _is_of_a_checkpoint, "an archive of a TensorFlow checkpoint")
    indices = sorted(str(name) for name in files if name.suffix == ".index")
    if len(indices) != 1:
        found = f": {one_line(', '.join(indices))}" if indices else ""
        raise ValueError(f"{path}: {len(indices)} files *.index, expected that of one TensorFlow checkpoint{found}")
    prefix = indices[0].removesuffix(".index")
    try:
        try:
            shards, entries = _read_index(files[PurePosixPath(indices[0])])
        except _BundleError as error:
            raise _BundleError(f"{indices[0]}: {error}") from error
        wanted = {name: entry for name, entry in entries.items() if is_wanted(name)}
        claimed, there = sum(entry.size for entry in wanted.values()), sum(map(len, files.values()))
        if claimed > there:  # no two variables share their bytes
            raise _BundleError(f"its variables have {claimed} bytes, its files {there}: a part of a checkpoint")
        tensors = {}
        for name, entry in wanted.items():
            shard = f"{prefix}.data-{entry.shard:05}-of-{shards:05}"
            if PurePosixPath(shard) not in files:
                raise _BundleError(f"it has no {shard}, which {name} is in")
            tensors[name] = _tensor(name, entry, files[PurePosixPath(shard)], shard)
    except _BundleError as error:
        raise ValueError(f"{path}: {one_line(error)}") from error
    return tensors, sorted(entries.keys() - wanted.keys())


def _is_of_a_checkpoint(name: PurePosixPath) -> bool:
    """Say whether a file is an index or of data; "._NAME" is what macOS's tar adds to NAME."""
    return (name.suffix == ".index" or ".data-" in name.name) and not name.name.startswith("._")


def _tensor(name: str, entry: _Entry, file: bytes, shard: str) -> Tensor:
    if entry.is_sliced:
        raise _BundleError(f"{name} is stored in slices, of a partitioned variable; expected whole ones")
    if (dtype := DTYPES.get(entry.dtype)) is None:
        raise _BundleError(f"{name} is of TensorFlow's type {entry.dtype}; expected plain numbers")
    if len(entry.shape) > DIMENSIONS or not all(0 <= side < 2**63 for side in entry.shape):
        raise _BundleError(f"{name} has shape {entry.shape[:DIMENSIONS]}; expected up to {DIMENSIONS} sides")
    count = prod(entry.shape)
    if entry.size != count * dtype.itemsize:
        raise _BundleError(f"{name} has {entry.size} bytes, expected {count * dtype.itemsize} of shape {entry.shape}")
    if entry.offset + entry.size > len(file):
        raise _BundleError(f"{shard} has {len(file)} bytes, expected {entry.offset + entry.size}, for {name}")
    values = file[entry.offset : entry.offset + entry.size]
    if _masked_checksum(values) != entry.checksum:
        raise _BundleError(f"{shard} is damaged: the checksum of {name} is another")
    if not count:
        return torch.empty(entry.shape, dtype=dtype)
    return torch.frombuffer(bytearray(values), dtype=dtype).reshape(entry.shape)


def _masked_checksum(data: bytes) -> int:
    """Return the CRC-32C of some bytes, masked as LevelDB stores it (tensorflow/core/lib/hash/crc32c.h)."""
    checksum = google_crc32c.value(data)
    return ((checksum >> 15 | checksum << 17) + 0xA282EAD8) & 0xFFFFFFFF


def _read_index(data: bytes) -> tuple[int, dict[str, _Entry]]:
    """Return the number of data files and the variables by name."""
    if len(data) < FOOTER or int.from_bytes(data[-8:], "little") != MAGIC:
        raise _BundleError("it does not end as a TensorFlow index does: another file, or a part of one")
    footer = data[-FOOTER:-8]
    (offset, size), place = _handle(footer, 0)
    for _ in _block(data, offset, size):  # metadata, of which there is none
        pass
    (offset, size), _ = _handle(footer, place)
    pairs: list[tuple[bytes, bytes]] = []
    end, room = 0, KEYS * len(data)
    for _, value in _block(data, offset, size):
        (offset, size), _ = _handle(value, 0)
        if offset < end:  # each block once
            raise _BundleError(f"its block at {offset} begins before the end of the last")
        end = offset + size
        for key, value in _block(data, offset, size):
            room -= len(key)
            if room < 0:
                raise _BundleError(f"its keys take more than {KEYS} times its {len(data)} bytes")
            pairs.append((key, value))
    if not pairs or pairs[0][0]:
        raise _BundleError("it has no header")
    header = _fields(pairs[0][1])
    if _number(header, 2):
        raise _BundleError("it was written on a big-endian machine; expected little-endian")
    version = _fields(_bytes(header, 3))
    if _number(version, 2) > VERSION:
        raise _BundleError(f"it is for readers of version {_number(version, 2)}; expected up to {VERSION}")
    entries: dict[str, _Entry] = {}
    last = b""
    for key, value in pairs[1:]:
        if key <= last:
            raise _BundleError(f"its keys are not in order at {_text(key)}")
        entries[_text(key)] = _entry(value)
        last = key
    return _number(header, 1), entries


def _block(data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield the keys and values of a block."""
    if offset + size + TRAILER > len(data) - FOOTER:
        raise _BundleError(f"its block at {offset} has {size} bytes, which is past its end: a part of a file")
    block = data[offset : offset + size]
    kind = data[offset + size]
    checksum = int.from_bytes(data[offset + size + 1 : offset + size + TRAILER], "little")
    if _masked_checksum(data[offset : offset + size + 1]) != checksum:
        raise _BundleError(f"it is damaged: the checksum of its block at {offset} is another")
    if kind != PLAIN:
        how = "compressed (snappy)" if kind == SNAPPY else f"of the unknown type {kind}"
        raise _BundleError(f"its block at {offset} is {how}; expected plain ones, as TensorFlow writes them")
    restarts = int.from_bytes(block[-4:], "little")
    end = size - 4 * (restarts + 1)
    if size < 4 or end < 0:
        raise _BundleError(f"its block at {offset} has {restarts} restarts in {size} bytes")
    key, place = b"", 0
    while place < end:
        shared, place = _varint(block, place)
        own, place = _varint(block, place)
        length, place = _varint(block, place)
        if shared > len(key) or shared + own > LONGEST_KEY or place + own + length > end:
            raise _BundleError(f"an entry of its block at {offset} is longer than the block")
        key = key[:shared] + block[place : place + own]
        place += own + length
        yield key, block[place - length : place]


def _handle(data: bytes, place: int) -> tuple[tuple[int, int], int]:
    """Return where a block is, its offset and size, and where the next of `data` begins."""
    offset, place = _varint(data, place)
    size, place = _varint(data, place)
    return (offset, size), place


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """Return a number of up to 64 bits, seven a byte, and where the next begins."""
    number = 0
    for shift in range(0, 70, 7):
        if place >= len(data):
            break
        number |= (data[place] & 127) << shift
        place += 1
        if data[place - 1] < 128:
            return number & (2**64 - 1), place
    raise _BundleError("a number in it has no end")


def _fields(data: bytes) -> Fields:
    """Return what is in a protocol buffer, numbers as they are and messages as bytes."""
    fields: Fields = {}
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        value: int | bytes
        if tag & 7 == 0:
            value, place = _varint(data, place)
        else:
            if tag & 7 == 2:
                length, place = _varint(data, place)
            elif tag & 7 in (1, 5):
                length = 8 if tag & 7 == 1 else 4
            else:
                raise _BundleError(f"a field in it is of the unknown wire type {tag & 7}")
            if place + length > len(data):
                raise _BundleError("a field in it is longer than the entry")
            value = data[place : place + length]
            place += length
            if tag & 7 != 2:
                value = int.from_bytes(value, "little")
        fields.setdefault(tag >> 3, []).append(value)
    return fields


def _number(fields: Fields, number: int) -> int:
    """Return a field that is a number, the last of its kind, 0 where there is none."""
    value = fields.get(number, [0])[-1]
    if not isinstance(value, int):
        raise _BundleError(f"the field {number} of an entry is no number")
    return value


def _bytes(fields: Fields, number: int) -> bytes:
    """Return a field that is a message, empty where there is none."""
    value = fields.get(number, [b""])[-1]
    if not isinstance(value, bytes):
        raise _BundleError(f"the field {number} of an entry is no message")
    return value


def _entry(data: bytes) -> _Entry:
    fields = _fields(data)
    shape = _fields(_bytes(fields, 2))
    sides = [_number(_fields(side), 1) for side in shape.get(2, []) if isinstance(side, bytes)]
    dtype, shard, offset, size, checksum = (_number(fields, number) for number in (1, 3, 4, 5, 6))
    return _Entry(dtype, sides, shard, offset, size, checksum, is_sliced=7 in fields)


def _text(key: bytes) -> str:
    return key.decode(errors="backslashreplace")

"""What a pickle of torch.save describes, read without running anything of it.

torch.load refuses what published checkpoints hold beside weights: classes of optimizer and schedule, numbers of
NumPy, settings as a Namespace. Told to allow these, it calls them. Here a pickle is a list of instructions to a small
machine, which calls nothing: what it names stays a name; what stands for a call is known (`Machine.call`); and a
tensor is a description until it is asked for. An object of somebody's own class, such as a value of an Enum beside
the weights, is a stand-in of which no more is known than the name of its class. What Python and PyTorch have is
refused where it is none of what weights need.

What an instruction costs does not grow with the file: it may name what the file holds once as often as it likes.
"""

import pickletools
import sys
from dataclasses import dataclass, replace
from typing import IO, Any

import torch

MOST_INSTRUCTIONS = 2_000_000  # some seconds; a CLIP with copies for its training has 60,000
MOST_DIMENSIONS = 64  # of a tensor of PyTorch
LONGEST_NAME = 1000  # of a class, in characters
DTYPES = {
    "torch.FloatStorage": torch.float32,
    "torch.DoubleStorage": torch.float64,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
    "torch.QInt8Storage": torch.int8,
}
OTHER_TYPE = "has a type that is not read; expected floats of 16 to 64 bits or integers"
QUANTISED = "is quantised; expected what its dequantize() returns"
BITS = "has a negative or conjugate bit; expected what resolve_neg() or resolve_conj() returns"
OTHER_TENSORS = {
    "torch._utils._rebuild_sparse_tensor": "is sparse; expected what its to_dense() returns",
    "torch._utils._rebuild_meta_tensor_no_storage": "is of the device meta, without values",
    "torch._utils._rebuild_tensor_v3": OTHER_TYPE,
}
TENSOR_CLASSES = {"torch.Tensor", "torch._tensor.Tensor", "torch.nn.parameter.Parameter", "torch.nn.parameter.Buffer"}
MAPPINGS = {"collections.OrderedDict", "collections.defaultdict", "collections.Counter"}
BUILTINS = ("bytes", "complex", "frozenset", "range", "set", "slice")
PATHS = ("PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")
# what is called to describe a value, and does nothing else; the value stays unread
RECORDS = {
    *("numpy.dtype", "_codecs.encode", "__builtin__.xrange"),
    *(f"{module}.{name}" for module in ("builtins", "__builtin__") for name in BUILTINS),
    *(f"datetime.{name}" for name in ("date", "time", "datetime", "timedelta", "timezone")),
    *("collections.deque", "types.SimpleNamespace", "uuid.UUID", "decimal.Decimal", "fractions.Fraction"),
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *("numpy.core.numeric._frombuffer", "numpy._core.numeric._frombuffer"),
    *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in PATHS),
    "argparse.Namespace",
    *("torch.Size", "torch.device", "torch.torch_version.TorchVersion", "torch.serialization._get_layout"),
}
# what else they have is not called; what other packages have is somebody's own
KNOWN = sys.stdlib_module_names | {"__builtin__", "copy_reg", "numpy", "torch"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
PLAIN = {"int", "int_or_bool", "float", "str", "bytes", "bytes_or_str", "bytearray"}
LITERALS = {
    code.name
    for code in pickletools.opcodes
    if code.arg and not code.stack_before and {kind.name for kind in code.stack_after} <= PLAIN and code.stack_after
}


class ContentError(ValueError):
    """What is wrong with what a file holds."""


@dataclass(frozen=True)
class Name:
    """A class or a function that a file names: nothing that could be called."""

    text: str


@dataclass(frozen=True)
class Unread:
    """What a file describes beside tensors and plain data; `kind`: what it is made by, a class or a function."""

    kind: str = "a set"


@dataclass(frozen=True, eq=False)
class Key:
    """A key of a dictionary that is no text. Each is another: the hash of what a file holds can take any time."""

    value: Any

    def __repr__(self) -> str:
        return repr(self.value) if isinstance(self.value, int | float) else f"a {type(self.value).__name__}"


@dataclass(frozen=True)
class Storage:
    """Where the numbers of tensors are: `count` of them, from `start`, in a part of the file by its key."""

    key: str
    dtype: torch.dtype | None  # None: one that is not read
    start: int
    count: int


@dataclass(frozen=True)
class Quantised:
    """How the integers of a quantised tensor are to be read: less `zero_point`, times `scale`, both for all of them,
    or as tensors for each index of the dimension `axis`."""

    scale: "float | StoredTensor"
    zero_point: "int | StoredTensor"
    axis: int | None = None


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is not read yet, or the reason why it can't be. The numbers of a quantised one are integers."""

    storage: Storage | None
    offset: int = 0
    size: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    problem: str | None = None
    quantised: Quantised | None = None


class Machine:
    """Reads one pickle: the instructions that files of torch.save are written in (pickle, protocols 2 to 5)."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # stacks under a mark
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self.spent = 0  # instructions, and pairs that come in a call

    def run(self, stream: IO[bytes]) -> Any:
        """Return what a pickle describes: plain data, `StoredTensor`, `Name` and `Unread`.

        Raises ContentError where it is too long or calls something unknown, others where it is damaged.
        """
        for code, argument, _ in pickletools.genops(stream):
            self._spend(1)
            if code.name == "STOP":
                return self.stack.pop()
            if code.name in LITERALS:
                self.stack.append(argument)
            elif code.name in CONSTANTS:
                self.stack.append(CONSTANTS[code.name])
            elif not (self._of_containers(code.name) or self._of_names(code.name, argument)):
                raise ContentError(f"its instruction {code.name} is not of a state dict")
        raise ContentError("it has no end")  # pragma: no cover  # genops raises before

    def _spend(self, instructions: int) -> None:
        self.spent += instructions
        if self.spent > MOST_INSTRUCTIONS:
            raise ContentError(f"it has more than {MOST_INSTRUCTIONS:,} instructions")

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def _of_containers(self, code: str) -> bool:
        stack = self.stack
        if code == "MARK":
            self.below.append(stack)
            self.stack = []
        elif code in ("EMPTY_LIST", "EMPTY_DICT"):
            stack.append([] if code == "EMPTY_LIST" else {})
        elif code in ("TUPLE1", "TUPLE2", "TUPLE3"):
            items = [stack.pop() for _ in range(int(code[-1]))]
            stack.append(tuple(reversed(items)))
        elif code in ("TUPLE", "LIST"):
            made = self._since_mark()
            self.stack.append(tuple(made) if code == "TUPLE" else made)
        elif code in ("APPEND", "APPENDS"):
            items = [stack.pop()] if code == "APPEND" else self._since_mark()
            target = self.stack[-1]
            if not isinstance(target, list | Unread):
                raise ContentError("it appends to what is no list")
            if isinstance(target, list):
                target += items
        elif code in ("SETITEM", "SETITEMS", "DICT"):
            items = [stack.pop(), stack.pop()][::-1] if code == "SETITEM" else self._since_mark()
            if code == "DICT":
                self.stack.append({})
            _fill(self.stack[-1], zip(items[::2], items[1::2], strict=True))
        elif code in ("POP", "POP_MARK"):
            _ = stack.pop() if code == "POP" else self._since_mark()
        elif code in ("EMPTY_SET", "FROZENSET", "ADDITEMS"):
            _ = [] if code == "EMPTY_SET" else self._since_mark()
            if code != "ADDITEMS":
                self.stack.append(Unread())
        else:
            return False
        return True

    def _of_names(self, code: str, argument: Any) -> bool:
        stack = self.stack
        if code in ("PROTO", "FRAME"):
            pass
        elif code in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif code == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif code in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif code == "GLOBAL":
            stack.append(_name(*argument.split(" ", 1)))
        elif code == "STACK_GLOBAL":
            name, module = stack.pop(), stack.pop()
            stack.append(_name(module, name))
        elif code == "BINPERSID":
            stack.append(self._storage(*stack.pop()))
        elif code in ("REDUCE", "NEWOBJ"):
            arguments, called = stack.pop(), stack.pop()
            stack.append(self.call(called, arguments))
        elif code == "BUILD":  # attributes, such as the `_metadata` of a state dict
            stack.pop()
            if not isinstance(stack[-1], dict | Unread):
                raise ContentError("it gives a state to what has none")
        else:
            return False
        return True

    def call(self, called: Any, arguments: Any) -> Any:
        """Return what stands for a call. Raises ContentError for all but those that tensors and plain data need."""
        name = called.text if isinstance(called, Name) else repr(type(called))
        if name in ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"):
            storage, offset, size, stride = arguments[:4]
            is_short = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
            if not isinstance(storage, Storage) or not is_short or len(size) > MOST_DIMENSIONS:
                raise ContentError("it describes a tensor without a size")
            if not _counts(offset, *size, *stride):
                raise ContentError("it describes a tensor without a size")
            return StoredTensor(storage, offset, size, stride, BITS if any(arguments[6:]) else None)
        if name == "torch._utils._rebuild_qtensor":
            plain = self.call(Name("torch._utils._rebuild_tensor"), arguments[:4])
            return replace(plain, problem=QUANTISED, quantised=_quantised(arguments[4], plain.size))
        if name == "torch._tensor._rebuild_from_type_v2":  # a tensor with attributes, or of a class of its own
            function, kind, of_tensor = arguments[:3]
            if kind.text in TENSOR_CLASSES:
                return self.call(function, of_tensor)
            return StoredTensor(None, problem=f"is of the class {kind.text}; expected a tensor of PyTorch's own")
        if name in ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state"):
            return arguments[0]
        if name in OTHER_TENSORS:
            return StoredTensor(None, problem=OTHER_TENSORS[name])
        if name in MAPPINGS:
            pairs = arguments[0] if arguments and name == "collections.OrderedDict" else []
            self._spend(len(pairs))
            return _fill({}, pairs)
        if name in RECORDS:
            return Unread(name)
        if name in ("builtins.getattr", "__builtin__.getattr"):  # how a method is named, such as that of a schedule
            owner, attribute = arguments
            return owner if isinstance(owner, Unread) else _name(owner.text, attribute)
        if isinstance(called, Name) and name.partition(".")[0] not in KNOWN:
            return Unread(name)
        raise ContentError(f"it calls {name}; expected data alone, as of torch.save(network.state_dict(), ...)")

    def _storage(
        self, kind: str, storage_type: Name, key: str, _: str, count: int = -1, view: Any = None
    ) -> Storage | Name:
        if kind == "module":  # a class, with its source
            return storage_type
        if kind != "storage" or not isinstance(key, str) or not _counts(count):
            raise ContentError("it refers to something that is no tensor")
        dtype = DTYPES.get(storage_type.text.replace("torch.cuda.", "torch."))
        self.storages.setdefault(key, Storage(key, dtype, 0, count))
        start, count = view[1:] if view else (0, count)
        if not _counts(start, count):
            raise ContentError("it refers to a part of a storage without a size")
        return Storage(key, dtype, start, count)


def _counts(*values: Any) -> bool:
    return all(type(value) is int and 0 <= value < 2**63 for value in values)


def _quantised(parameters: Any, size: tuple[int, ...]) -> Quantised | None:
    """Return how a tensor is quantised, None where it is in no way that is read."""
    match parameters:
        case (Name(text="torch.per_tensor_affine"), float(scale), int(zero_point)):
            return Quantised(scale, zero_point)
        case (Name(text="torch.per_channel_affine"), StoredTensor() as scales, StoredTensor() as zeros, int(axis)):
            if 0 <= axis < len(size) and scales.size == zeros.size == (size[axis],):
                return Quantised(scales, zeros, axis)
    return None


def _name(module: Any, name: Any) -> Name:
    if not (isinstance(module, str) and isinstance(name, str) and len(module) + len(name) < LONGEST_NAME):
        raise ContentError("it names a class by what is no name")
    return Name(f"{module}.{name}")


def _fill(target: Any, pairs: Any) -> Any:
    """Put pairs into a dictionary, each key once."""
    for key, value in pairs:
        key = key if isinstance(key, str) else Key(key)
        if not isinstance(target, dict | Unread) or (isinstance(target, dict) and key in target):
            raise ContentError(f"it has the key {key!r} twice, or in what is no dictionary")
        if isinstance(target, dict):
            target[key] = value
    return target

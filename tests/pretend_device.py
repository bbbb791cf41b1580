"""A pretend GPU: tensors that claim to be on "cuda" and compute on the CPU, with real values.

Within `pretend_device()`, what code asks of "cuda" is a PretendTensor. Tensors of both devices in one operation raise
an error, as under CUDA; launches and host synchronisations are counted. It is the rules of devices that are checked:
kernels, streams, memory and time are not a GPU's. An operation counts as one launch, where a GPU may need several;
attention, for which a GPU has one kernel, counts by its parts.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import hiddencost

CPU, CLAIMED = torch.device("cpu"), torch.device("cuda", 0)
# what C++ takes the device for, as a FakeTensor's: its autograd needs no driver, and no code here uses it otherwise
INNER = torch.device("meta")
PROJECT = Path(hiddencost.__file__).parent, Path(__file__).parent
aten = torch.ops.aten
COMPOSITE = torch._C.DispatchKey.CompositeImplicitAutograd
METADATA = (aten._unsafe_view.default,)  # no kernel, though no view either
INDEXING = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default)


class PretendTensor(Tensor):
    """A tensor that claims to be on CLAIMED; its values are those of `held`, on the CPU."""

    held: Tensor
    device = property(lambda self: CLAIMED)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "PretendTensor":
        layout = {"strides": held.stride(), "storage_offset": held.storage_offset()}
        with torch.inference_mode(held.is_inference()):  # a view of what is none is none, in that mode too
            made = Tensor._make_wrapper_subclass(cls, held.shape, **layout, dtype=held.dtype, device=INNER)
        made.held = held
        return made

    def to(self, *args, **kwargs) -> Tensor:
        """As Tensor.to: of a tensor that is there already, itself."""
        return super().to(*map(_inner, args), **{key: _inner(value) for key, value in kwargs.items()})

    def cuda(self, *args, **kwargs) -> Tensor:
        """As Tensor.cuda."""
        return self

    def tolist(self) -> list:
        """As Tensor.tolist, which copies first."""
        return self.cpu().tolist()

    def __deepcopy__(self, memo: dict) -> "PretendTensor":
        made = self.detach().clone().requires_grad_(self.requires_grad)
        made.__dict__ |= self.__dict__ | {"held": made.held}  # a parameter's says that it is one
        return memo.setdefault(id(self), made)

    def new_tensor(self, data, dtype: torch.dtype | None = None, device=CLAIMED, **kwargs) -> Tensor:
        """As Tensor.new_tensor, which copies from the host."""
        return torch.tensor(data, dtype=dtype or self.dtype, device=device, **kwargs)

    def __repr__(self) -> str:
        return f"PretendTensor({self.held})"

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        raise RuntimeError(f"{operation}: a tensor of the pretend device is used outside of pretend_device()")


class PretendDevice(TorchDispatchMode):
    """Computes the operations on pretend tensors, and keeps the counts: see `pretend_device`."""

    _mode_key = torch._C._TorchDispatchModeKey.FAKE  # FakeTensorMode's: then PyTorch looks for no driver

    def __init__(self):
        super().__init__()
        self.launches: Counter[str] = Counter()
        self.syncs: list[str] = []
        self._pinned: dict[int, Tensor] = {}  # by the address of their memory, which is kept with them

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        pretend = [tensor for tensor in given if isinstance(tensor, PretendTensor)]
        if torch._C._dispatch_has_kernel_for_dispatch_key(operation.name(), COMPOSITE):
            with self:  # it consists of other operations, which are checked and counted
                return operation._op_dk(COMPOSITE, *args, **kwargs)
        if operation is aten._pin_memory.default:
            return self._pin(args[0].clone())
        if operation is aten.is_pinned.default:
            return self._is_pinned(args[0])
        there = bool(pretend) if kwargs.get("device") is None else _inner(kwargs["device"]) == INNER
        self._check(operation, args, given, pretend)
        shapes_in_place = torch.Tag.inplace_view in operation.tags
        free = operation in METADATA or operation.is_view or shapes_in_place or "empty" in operation.name()
        if (pretend or there) and not free:
            self.launches[str(operation)] += 1
            if reason := self._waits(operation, args, kwargs, there):
                self.syncs.append(f"{operation} ({reason}) at {_where()}")
        if pretend and shapes_in_place:  # the outer tensor has a shape of its own
            with no_dispatch():
                operation(*args, **kwargs)
        inner_args, inner_kwargs = tree_map_only(PretendTensor, lambda tensor: tensor.held, (args, kwargs))
        if inner_kwargs.get("device") is not None:
            inner_kwargs["device"] = CPU
        if inner_kwargs.pop("pin_memory", False):
            return self._pin(operation(*inner_args, **inner_kwargs))
        known = {id(tensor.held if isinstance(tensor, PretendTensor) else tensor): tensor for tensor in given}

        def outer(result: Tensor) -> Tensor:
            """Return the tensor that was worked on in place, or a new one on its device."""
            return known.get(id(result), PretendTensor(result) if there else result)

        return tree_map_only(Tensor, outer, operation(*inner_args, **inner_kwargs))

    def _check(self, operation, args: tuple, given: list[Tensor], pretend: list[Tensor]) -> None:
        """Raise RuntimeError where tensors of both devices meet."""
        mixed = [tensor for tensor in given if tensor.dim() and not isinstance(tensor, PretendTensor)]
        if operation in INDEXING and isinstance(args[0], PretendTensor):  # CUDA fetches indices, but not values
            mixed = [tensor for tensor in args[2:3] if tensor.dim() and not isinstance(tensor, PretendTensor)]
        if pretend and mixed and operation is not aten.copy_.default:
            places = ", ".join(f"{list(tensor.shape)} on {tensor.device.type}" for tensor in given)
            raise RuntimeError(f"{operation}: tensors on different devices: {places}; at {_where()}")

    def _waits(self, operation, args: tuple, kwargs: dict, there: bool) -> str | None:
        """Say why the host would wait for the device, if it does."""
        if operation in (aten._to_copy.default, aten.copy_.default):
            source = args[1] if operation is aten.copy_.default else args[0]
            there = isinstance(args[0], PretendTensor) if operation is aten.copy_.default else there
            if isinstance(source, PretendTensor):  # also if it does not block: who reads the copy has to wait for it
                return None if there else "device to host"
            asked = any(args[2:]) or kwargs.get("non_blocking", False)
            if asked and self._is_pinned(source):
                return None
            return f"host to device, {'not from pinned memory' if asked else 'blocking'}"
        if operation in INDEXING:
            indices = [index for index in args[1] if index is not None]
            if not all(isinstance(index, PretendTensor) for index in indices):
                return "an index from the host"
            fills = operation is not aten.index.Tensor and args[2].numel() == 1 and not any(args[3:4])
            by_mask = any(index.dtype in (torch.bool, torch.uint8) for index in indices)
            return "a mask as index" if by_mask and not fills else None
        sized = operation is aten.repeat_interleave.Tensor and kwargs.get("output_size") is not None
        by_values = {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape} & set(operation.tags)
        return "its result or shape depends on values" if by_values and not sized else None

    def _pin(self, tensor: Tensor) -> Tensor:
        if isinstance(tensor, PretendTensor):
            raise RuntimeError(f"only a tensor on the CPU can be pinned; at {_where()}")
        self._pinned[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    def _is_pinned(self, tensor: Tensor) -> bool:
        return not isinstance(tensor, PretendTensor) and tensor.untyped_storage().data_ptr() in self._pinned


def _inner(value):
    """Return what C++ takes for the device, where one is named; else the value itself."""
    names_it = isinstance(value, str | torch.device) and torch.device(value).type == CLAIMED.type
    return INNER if names_it else value


def _where() -> str:
    """Return the innermost frames of the project, or that of the caller where there is none, the last call first."""
    frames, frame = [], sys._getframe()
    while frame:
        path = Path(frame.f_code.co_filename)
        if path != Path(__file__) and any(folder in path.parents for folder in PROJECT):
            frames.append(f"{path.name}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(frames[:4]) or "no frame of the project"


@contextmanager
def pretend_device() -> Iterator[PretendDevice]:
    """Pretend that there is a GPU: "cuda" names it. Yields the device with its counts.

    launches: how often each operation has run, copies too, but neither views nor empty allocations; syncs: of each
    synchronisation the operation, why it waits, and the project's calls that led to it.
    """
    device, before = PretendDevice(), torch.__future__.get_overwrite_module_params_on_conversion()
    torch.__future__.set_overwrite_module_params_on_conversion(True)  # new parameters, as data cannot change device
    try:
        torch._C._ensureCUDADeviceGuardSet()  # where CUDA is not: "cuda" is device 0 of it
        torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor makes one on the host and copies it, seen here
        with device:
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(False)
        torch.__future__.set_overwrite_module_params_on_conversion(before)

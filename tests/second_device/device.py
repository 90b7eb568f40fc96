"""A second device for torch, in Python: real numbers, memory of its own, no mixing with the CPU.

A tensor on it holds a CPU tensor. Autograd, ComfyUI and this pack take it for an accelerator: an
operator on tensors of two devices raises, as it does on a GPU; memory is counted by storage, and
beyond the budget the error that ComfyUI knows as out of memory is raised. ComfyUI knows backends
of this kind by the name "npu", and asks `torch.npu` what memory they have.

Needs torch 2.13, which made Python backends possible.
"""

from __future__ import annotations

import sys
import types
import weakref
from collections import Counter
from importlib.machinery import ModuleSpec

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

NAME = "npu"
CROSSING = {"aten::_to_copy", "aten::copy_", "aten::to", "aten::_copy_from"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Memory:
    """The device's memory in bytes: what is in use, the peak since `restart`, and the budget.

    refused: how often memory ran out.
    """

    def __init__(self) -> None:
        self.budget = 2**34
        self.used = self.peak = self.refused = 0
        self._sizes: dict[int, int] = {}

    def restart(self) -> None:
        self.peak = self.used

    def hold(self, raw: Tensor) -> None:
        """Count a tensor's storage until nothing holds it."""
        storage = raw.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._sizes:
            return
        if self.used + size > self.budget:
            self.refused += 1
            raise torch.OutOfMemoryError(
                f"{NAME} out of memory. Tried to allocate {size} bytes, "
                f"{self.budget - self.used} of {self.budget} are free."
            )
        self._sizes[key] = size
        self.used += size
        self.peak = max(self.peak, self.used)
        weakref.finalize(storage, self._drop, key).atexit = False

    def _drop(self, key: int) -> None:
        self.used -= self._sizes.pop(key)


MEMORY = Memory()


class OnDevice(Tensor):
    """A tensor on the device; `raw` holds its numbers."""

    raw: Tensor

    @staticmethod
    def __new__(cls, raw: Tensor) -> OnDevice:
        MEMORY.hold(raw)
        made = Tensor._make_wrapper_subclass(
            cls,
            raw.size(),
            strides=raw.stride(),
            storage_offset=raw.storage_offset(),
            dtype=raw.dtype,
            device=torch.device(NAME, 0),
        )
        made.raw = raw
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return run(func, args, kwargs or {})

    def __tensor_flatten__(self):
        return ["raw"], None

    @staticmethod
    def __tensor_unflatten__(parts, context, size, stride):
        return OnDevice(parts["raw"])

    def untyped_storage(self):
        return self.raw.untyped_storage()

    def data_ptr(self) -> int:
        return self.raw.data_ptr()

    def tolist(self):
        return self.raw.tolist()

    def new_tensor(self, data, dtype=None, device=None, requires_grad=False):
        device = self.device if device is None else device
        made = torch.tensor(data, dtype=dtype or self.dtype, device=device)
        return made.requires_grad_(requires_grad)

    def __format__(self, spec: str) -> str:
        return format(self.raw.item() if self.ndim == 0 else self.raw, spec)

    def __repr__(self) -> str:
        return f"{NAME}({self.raw!r})"


def run(func, args, kwargs):
    """An operator on the device: on the numbers that its tensors hold, all of one device."""
    name = func._schema.name
    if name == "aten::_has_compatible_shallow_copy_type":
        return type(args[0]) is type(args[1])
    met = Met()
    given = args[0] if args else None
    args, kwargs = met.plain(args), met.plain(kwargs)
    if met.ours and met.strange:
        _insist_on_one_device(name, given)
    if kwargs.get("pin_memory") is False:
        kwargs["pin_memory"] = None
    got = func(*args, **kwargs)
    if name == "aten::copy_":
        return given
    here = met.target.type == NAME if met.target else bool(met.ours)
    return met.on_device(got) if here else got


class Met:
    """What an operator is given: our tensors, whether it gets strangers, and the device named."""

    def __init__(self) -> None:
        self.ours: dict[int, OnDevice] = {}
        self.strange = False
        self.target: torch.device | None = None

    def plain(self, value):
        """`value` as the CPU understands it."""
        if isinstance(value, OnDevice):
            self.ours[id(value.raw)] = value
            return value.raw
        if isinstance(value, Tensor):
            self.strange = self.strange or value.ndim > 0
        elif isinstance(value, list | tuple):
            return type(value)([self.plain(item) for item in value])
        elif isinstance(value, dict):
            return {key: self.plain(item) for key, item in value.items()}
        elif isinstance(value, torch.device):
            self.target = value
            return torch.device("cpu")
        return value

    def on_device(self, value):
        """A result on the device; a tensor that was written to stays itself."""
        if isinstance(value, Tensor):
            return self.ours[id(value)] if id(value) in self.ours else OnDevice(value)
        if isinstance(value, list | tuple):
            return type(value)([self.on_device(item) for item in value])
        return value


def _insist_on_one_device(name: str, first) -> None:
    """As on a GPU: a number may lie on the CPU, and so may an index into a tensor of the device."""
    if name in CROSSING or (name in INDEXING and isinstance(first, OnDevice)):
        return
    raise RuntimeError(
        f"Expected all tensors to be on the same device, but {name} got {NAME}:0 and cpu."
    )


class Backend(types.ModuleType):
    """`torch.npu`, as far as ComfyUI asks it."""

    Event = Stream = None

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def get_device_name(self, device=None) -> str:
        return "a device in Python"

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Its numbers come from the CPU's generator, which is seeded by itself."""

    def get_rng_state(self, device=None) -> Tensor:
        return torch.get_rng_state()

    def set_rng_state(self, state: Tensor, device=None) -> None:
        torch.set_rng_state(state)

    def memory_stats(self, device=None) -> dict[str, int]:
        return dict.fromkeys(
            ("active_bytes.all.current", "reserved_bytes.all.current"), MEMORY.used
        )

    def mem_get_info(self, device=None) -> tuple[int, int]:
        return MEMORY.budget - MEMORY.used, MEMORY.budget

    def empty_cache(self) -> None:
        """No cache is kept."""


def install() -> None:
    """Make the device known to torch, for the life of this process."""
    from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

    torch.version.cuda = torch.version.hip = None  # this process has one accelerator
    _setup_privateuseone_for_python_backend(NAME, Backend(f"torch.{NAME}"))
    library = torch.library.Library("_", "IMPL")
    library.fallback(lambda op, *args, **kwargs: run(op, args, kwargs), "PrivateUse1")
    install.kept = library  # its end would be the fallback's
    plain_tensor, plain_generator = torch.tensor, torch.Generator

    def tensor(data, *, dtype=None, device=None, **more):
        made = plain_tensor(_numbers(data), dtype=dtype, **more)
        return made if device is None else made.to(device)

    class Generator(plain_generator):
        def __new__(cls, device="cpu"):
            return plain_generator.__new__(cls, "cpu")

    torch.tensor, torch.Generator = tensor, Generator


def _numbers(data):
    """Python data in which tensors of the device are numbers, as torch reads those of a GPU."""
    if isinstance(data, list | tuple):
        return [_numbers(item) for item in data]
    return data.tolist() if isinstance(data, OnDevice) else data


def announce() -> types.ModuleType:
    """What ComfyUI imports to see whether there is such a device; take it out again afterwards."""
    module = types.ModuleType("torch_npu")
    module.__spec__ = ModuleSpec("torch_npu", None)
    return sys.modules.setdefault("torch_npu", module)


class Elsewhere(TorchDispatchMode):
    """Counts the products, convolutions and norms that run on the CPU while this is on."""

    HEAVY = ("mm", "conv", "attention", "norm")

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name
        heavy = any(word in name for word in self.HEAVY)
        if heavy and not any(isinstance(leaf, OnDevice) for leaf in tree_leaves((args, kwargs))):
            self.found[name] += 1
        return func(*args, **(kwargs or {}))

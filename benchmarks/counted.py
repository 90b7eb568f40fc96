"""What an evaluation and its backward hold in memory: every live storage counted.

On tensors without contents (torch's fake tensors) a model of any size is counted in seconds.
Kernels are counted as a GPU's: attention keeps q, k, v, its output and a number per row; RMS norms
keep their input and a number per row. Not counted: a kernel's workspace, an allocator's losses.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

BLOCK = 512  # bytes in which a GPU's allocator gives out memory


class Counted(TorchDispatchMode):
    """Bytes of the storages made within that are alive: now, and at the peak."""

    def __init__(self, given: Iterable[Tensor] = ()):
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in given}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._count(leaf.untyped_storage())
        return result

    def _count(self, storage) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = -(-storage.nbytes() // BLOCK) * BLOCK
            self.now += self._sizes[key]
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key).atexit = False

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


class _FusedNorm(torch.autograd.Function):
    """What torch's RMS norm on a GPU saves: its input, its weight, and a number per row."""

    @staticmethod
    def forward(ctx, x, weight):
        rows = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
        ctx.save_for_backward(x, rows, *(() if weight is None else (weight,)))
        return torch.empty_like(x)

    @staticmethod
    def backward(ctx, gradient):
        return torch.empty_like(ctx.saved_tensors[0]), None


@contextmanager
def fused_norms() -> Iterator[None]:
    """Within, RMS norms are counted as a GPU's; their values are not computed."""
    import comfy.rmsnorm

    places = [
        (comfy.rmsnorm, "rms_norm_torch"),
        (torch.nn.functional, "rms_norm"),
        (torch, "rms_norm"),
    ]
    before = [getattr(owner, name, None) for owner, name in places]

    def norm(x, shape, weight=None, eps=None):
        return _FusedNorm.apply(x, weight)

    try:
        for owner, name in places:
            setattr(owner, name, norm)
        yield
    finally:
        for (owner, name), value in zip(places, before, strict=True):
            setattr(owner, name, value)


@contextmanager
def no_contents() -> Iterator[None]:
    """Within, tensors have shapes and storages but no numbers, and are told apart by storage.

    What they would hold is taken as equal: a kernel gives again what it gave.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from ComfyUI_DNO.dno.autograd import saved

    before, equal = saved.address, torch.equal
    try:
        saved.address = lambda tensor: tensor.untyped_storage()._cdata
        torch.equal = lambda a, b: a.shape == b.shape
        with FakeTensorMode(allow_non_fake_inputs=True):
            yield
    finally:
        saved.address, torch.equal = before, equal

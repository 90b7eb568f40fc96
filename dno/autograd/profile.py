"""What the modules of a network keep for backward, and which of them are worth recomputing.

Blocks are found by what they keep, not by their names: a network is run once at a small size with
a gradient, and every choice of modules is weighed by the bytes that it would leave in memory.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from .saved import Again, address


@dataclass(eq=False)
class _Call:
    """One call of a module: the storages of its inputs, and those that it saves by itself."""

    module: nn.Module
    inputs: dict[int, int]
    above: _Call | None
    saved: dict[int, int] = field(default_factory=dict)  # storage -> bytes, all that is within


@dataclass
class Profile:
    """What one run with a gradient kept. Bytes count every storage once, weights not at all."""

    calls: list[_Call]
    saves: list[tuple[_Call | None, int, int]]  # the innermost call, storage, bytes

    def bytes(self, blocks: frozenset[nn.Module] = frozenset()) -> tuple[int, int]:
        """(held until backward, most of one block beside it) if these modules are recomputed."""
        held = {storage: size for call, storage, size in self.saves if not _within(call, blocks)}
        most = 0
        for call in self.calls:
            if call.module in blocks:
                held |= call.inputs
                most = max(most, sum(call.saved.values()))
        return sum(held.values()), most

    def blocks(self) -> frozenset[nn.Module]:
        """The modules whose recomputation leaves the lowest peak; none where nothing is saved."""
        limits = sorted({sum(call.saved.values()) for call in self.calls}, reverse=True)
        choices = [frozenset(), *(self._up_to(limit) for limit in limits)]
        return min(choices, key=lambda blocks: sum(self.bytes(blocks)))

    def _up_to(self, limit: int) -> frozenset[nn.Module]:
        """The outermost modules that keep more than their inputs, and at most `limit` bytes."""
        kept: dict[nn.Module, int] = {}
        given: dict[nn.Module, int] = {}
        for call in self.calls:
            size, inputs = sum(call.saved.values()), sum(call.inputs.values())
            kept[call.module] = max(size, kept.get(call.module, 0))
            given[call.module] = max(inputs, given.get(call.module, 0))
        fitting = frozenset(m for m, size in kept.items() if given[m] < size <= limit)
        inner = {call.module for call in self.calls if _within(call.above, fitting)}
        return fitting - inner


def _within(call: _Call | None, blocks: frozenset[nn.Module]) -> bool:
    while call is not None:
        if call.module in blocks:
            return True
        call = call.above
    return False


def profile(
    network: nn.Module,
    run: Callable[[], Tensor],
    resident: frozenset[int],
    again: Again | None = None,
) -> Profile:
    """Run once, with a gradient, and see what is kept by which module of `network`.

    resident: storage addresses of weights, which cost nothing to save.
    again:    what gives a tensor again that need not be saved either.
    """
    result, alive = Profile([], []), []
    stack: list = []

    def pack(tensor: Tensor) -> None:
        if address(tensor) not in (0, *resident) and not (again and again(tensor)):
            storage = tensor.untyped_storage()
            alive.append(storage)  # so that no other takes its place
            inner = stack[-1] if stack else None
            result.saves.append((inner, storage._cdata, storage.nbytes()))
            while inner is not None:
                inner.saved[storage._cdata] = storage.nbytes()
                inner = inner.above
        # Nothing is handed on: this graph is never pulled, and an output in it would never leave.

    def enter(module: nn.Module, arguments: tuple, keywords: dict) -> None:
        tensors = [t for t in tree_leaves((arguments, keywords)) if isinstance(t, Tensor)]
        storages = [t.untyped_storage() for t in tensors if address(t) not in (0, *resident)]
        alive.extend(storages)
        inputs = {storage._cdata: storage.nbytes() for storage in storages}
        stack.append(_Call(module, inputs, stack[-1] if stack else None))
        result.calls.append(stack[-1])

    def leave(module: nn.Module, arguments: tuple, output: object) -> None:
        stack.pop()

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing)
    with _watched(network, enter, leave), torch.enable_grad(), hooks:
        run()
    return result


@contextmanager
def _watched(network: nn.Module, enter: Callable, leave: Callable) -> Iterator[None]:
    handles = []
    try:
        for module in network.modules():
            handles.append(module.register_forward_pre_hook(enter, with_kwargs=True))
            handles.append(module.register_forward_hook(leave, always_call=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


class Live(TorchDispatchMode):
    """Within, counts the bytes of the storages that torch makes, on any device: now and `peak`.

    What kernels use for themselves is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        before = {id(t) for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and id(tensor) not in before:
                self._count(tensor)
        return output

    def _count(self, tensor: Tensor) -> None:
        if not address(tensor):
            return
        storage = tensor.untyped_storage()
        if storage._cdata not in self._known:
            self._known[storage._cdata] = size = storage.nbytes()
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, storage._cdata).atexit = False

    def _drop(self, storage: int) -> None:
        self.now -= self._known.pop(storage)

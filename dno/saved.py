"""What autograd saves for backward: how much it is, and how it survives writes in place.

Saved-tensor hooks switch autograd's own version check off, so each kind here looks after it itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

OVERWRITTEN = "modified by an inplace operation"


class SavedBytes(torch.autograd.graph.saved_tensors_hooks):
    """Counts the bytes that autograd keeps for backward, each storage once, weights not at all.

    Raises as autograd does when a saved tensor was written to.
    """

    def __init__(self, resident: frozenset[int]):
        self._seen = set(resident)
        self.bytes = 0
        super().__init__(self._pack, self._unpack)

    def _pack(self, tensor: Tensor) -> tuple[Tensor, int]:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return tensor, tensor._version

    @staticmethod
    def _unpack(saved: tuple[Tensor, int]) -> Tensor:
        tensor, version = saved
        if tensor._version != version:
            raise RuntimeError(f"A tensor saved for backward has been {OVERWRITTEN}.")
        return tensor


@contextmanager
def writes_allowed() -> Iterator[None]:
    """Saved tensors are cloned before their storage is written to; spans forward and backward.

    `torch.autograd.graph.allow_mutation_on_saved_tensors` goes by the address of a tensor's first
    element, and so misses a write to a storage of which a slice was saved.
    """
    ledger = _Ledger()
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, ledger.unpack), _CloneFirst(ledger):
        yield


class _Saved:
    def __init__(self, tensor: Tensor):
        self.tensor = tensor


class _Ledger:
    """The saved tensors by the storage that they look at, as long as the graph needs them."""

    def __init__(self):
        self._watched: defaultdict[int, WeakSet[_Saved]] = defaultdict(WeakSet)

    def pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self._watched[_storage(tensor)].add(saved)
        return saved

    def unpack(self, saved: _Saved) -> Tensor:
        return saved.tensor

    def rescue(self, written: Tensor) -> None:
        """Clone what was saved of this storage: it is about to change."""
        for saved in list(self._watched.pop(_storage(written), ())):
            saved.tensor = saved.tensor.clone()


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


class _CloneFirst(TorchDispatchMode):
    def __init__(self, ledger: _Ledger):
        super().__init__()
        self._ledger = ledger
        self._arguments: dict = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func not in self._arguments:
            self._arguments[func] = _written(func)
        for index, name in self._arguments[func]:
            value = args[index] if index < len(args) else kwargs.get(name)
            tree_map_only(Tensor, self._ledger.rescue, value)
        return func(*args, **kwargs)


def _written(func) -> list[tuple[int, str]]:
    """Position and name of each argument that an operator writes to."""
    return [
        (index, argument.name)
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]

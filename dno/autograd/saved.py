"""What autograd saves for backward: how much it is, and how it survives writes in place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from weakref import WeakSet

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _get_current_dispatch_mode_stack
from torch.utils._pytree import tree_map_only

OVERWRITTEN = "modified by an inplace operation"

# For a tensor that need not be saved, what gives it again in backward; None for any other.
Again = Callable[[Tensor], Callable[[], Tensor] | None]


@contextmanager
def writes_allowed(
    resident: frozenset[int] = frozenset(),
    again: Again | None = None,
    ledger: Ledger | None = None,
) -> Iterator[Ledger]:
    """Saved tensors are cloned before their storage is written to; spans forward and backward.

    ledger: of an earlier part of the same forward, to go on with.

    `torch.autograd.graph.allow_mutation_on_saved_tensors` goes by the address of a tensor's first
    element, and so misses a write to a storage of which a slice was saved. Nor does plain autograd
    see a write through `.data`, as ComfyUI's hooks swap weights: here it is seen.
    """
    ledger = ledger or Ledger(resident, again)
    with saved_on(ledger), _CloneFirst(ledger):
        yield ledger


@contextmanager
def saved_on(ledger: Ledger) -> Iterator[Ledger]:
    """Within, what autograd saves is on the ledger; what can be had again is not kept at all."""
    with torch.autograd.graph.saved_tensors_hooks(ledger.pack, ledger.unpack):
        yield ledger


def fetched(again: Again | None) -> AbstractContextManager:
    """Within, what `again` gives again is not saved; with None nothing changes."""
    return saved_on(Ledger(again=again)) if again else nullcontext()


def address(tensor: Tensor) -> int:
    """Where the tensor's storage lies; 0 for a wrapper of other tensors (quantised weights)."""
    try:
        return tensor.untyped_storage().data_ptr()
    except RuntimeError:
        return 0


def storage(tensor: Tensor) -> int:
    """Which storage the tensor looks at, as long as it lives; 0 for a wrapper of other tensors."""
    try:
        return tensor.untyped_storage()._cdata
    except RuntimeError:
        return 0


def insist_on_writes_allowed() -> None:
    """Raise what autograd would, for a write that it cannot see, unless writes are allowed."""
    if not any(isinstance(mode, _CloneFirst) for mode in _get_current_dispatch_mode_stack()):
        raise RuntimeError(f"A tensor needed for the gradient will be {OVERWRITTEN}.")


class _Saved:
    def __init__(self, tensor: Tensor):
        # Without its own graph: an output that its graph saved would keep both for ever.
        self.tensor = tensor if tensor.grad_fn is None else tensor.detach()
        self.version = _version(tensor)


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


class Ledger:
    """The saved tensors by the storage that they look at, as long as the graph needs them.

    resident:    storage addresses of weights, which cost nothing to save.
    again:       what gives a tensor again that is not to be kept.
    bytes:       what was saved beside them, each storage once.
    largest:     of the saved storages.
    overwritten: whether any of it had to be cloned.
    """

    def __init__(self, resident: frozenset[int] = frozenset(), again: Again | None = None):
        self._counted, self._again = {0, *resident}, again
        self._watched: defaultdict[int, WeakSet[_Saved]] = defaultdict(WeakSet)
        self.bytes = self.largest = 0
        self.overwritten = False

    def ignore(self, tensors) -> None:
        """Do not count these: somebody else keeps them anyway."""
        self._counted.update(address(tensor) for tensor in tensors)

    def pack(self, tensor: Tensor) -> _Saved | Callable[[], Tensor]:
        fetch = self._again(tensor) if self._again else None
        if fetch is not None:
            return fetch
        saved, pointer = _Saved(tensor), address(tensor)
        self._watched[storage(tensor)].add(saved)
        if pointer not in self._counted:
            self._counted.add(pointer)
            size = tensor.untyped_storage().nbytes()
            self.bytes, self.largest = self.bytes + size, max(self.largest, size)
        return saved

    def unpack(self, saved: _Saved | Callable[[], Tensor]) -> Tensor:
        if not isinstance(saved, _Saved):
            return saved()
        if _version(saved.tensor) != saved.version:  # torch does not look where hooks are
            raise RuntimeError(f"A tensor needed for the gradient was {OVERWRITTEN}.")
        return saved.tensor

    def rescue(self, written: Tensor) -> None:
        """Clone what was saved of this storage: it is about to change."""
        for saved in list(self._watched.pop(storage(written), ())):
            saved.tensor = saved.tensor.clone()
            saved.version = _version(saved.tensor)
            self.overwritten = True


class _CloneFirst(TorchDispatchMode):
    def __init__(self, ledger: Ledger):
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
        with torch._C.DisableTorchFunctionSubclass():  # below its own function, not again in it
            return func(*args, **kwargs)


def _written(func) -> list[tuple[int, str]]:
    """Position and name of each argument that an operator writes to."""
    return [
        (index, argument.name)
        for index, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    ]

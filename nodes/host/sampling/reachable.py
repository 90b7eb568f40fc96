"""Everything changeable within reach of some objects: containers, closures, attributes, globals.

A `Holder` is one of them with what it held when it was found, shallow: what is held is reached, and
found, by itself.
"""

from __future__ import annotations

import dis
import functools
import types
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

MOST = 20_000  # objects: what is larger is data, not state
LIBRARIES = ("torch", "numpy", "comfy", "builtins", "transformers", "logging", "threading", "PIL")
STATEFUL = ("comfy.hooks", "comfy.context_windows")  # of the host, but with state
PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)
DATA = (Tensor, np.ndarray, torch.dtype, torch.device, nn.Module)
OF_MODULES = frozenset(vars(nn.Module()))  # what every module has: none of a pack's state
OF_LOADING = ("comfy", "prev_comfy", "weight_", "bias_", "forward", "_v", "_prefetch", "pin")


class Holder(ABC):
    """owner: whom a user would name."""

    def __init__(self, held, owner: object = None):
        self.held, self.owner = held, held if owner is None else owner
        self.content = self.read()

    @abstractmethod
    def read(self):
        """A shallow copy of what is held now."""

    @abstractmethod
    def write(self, content) -> None: ...

    def values(self) -> Sequence[object]:
        return list(self.content)

    def changed(self) -> bool:
        """Whether it holds other things now."""
        return not _identical(self.read(), self.content)

    def restore(self) -> bool:
        """Put back what was held; whether that was something else."""
        changed = self.changed()
        if changed:
            self.write(self.content)
        return changed


class Items(Holder):
    """A list, a deque or a set."""

    def read(self):
        return list(self.held)

    def write(self, content) -> None:
        self.held.clear()
        (self.held.update if isinstance(self.held, set) else self.held.extend)(content)


class Mapping(Holder):
    """A dict, or an object's attributes."""

    def read(self):
        return dict(self.held)

    def write(self, content) -> None:
        self.held.clear()
        self.held.update(content)

    def values(self):
        return list(self.content.values())


class Attributes(Mapping):
    """What a module has of its own, beside weights, submodules and what loading sets."""

    def read(self):
        return {n: v for n, v in vars(self.held).items() if _own(n)}

    def write(self, content) -> None:
        own = vars(self.held)
        for name in [name for name in own if _own(name) and name not in content]:
            del own[name]
        own.update(content)


class Globals(Mapping):
    """The globals that a function sets."""

    def __init__(self, function: types.FunctionType):
        self._names = _globals_of(function.__code__, "STORE_GLOBAL")
        super().__init__(function.__globals__, function)

    def read(self):
        return {name: self.held[name] for name in self._names if name in self.held}

    def write(self, content) -> None:
        for name in self._names:
            self.held.pop(name, None)
        self.held.update(content)


class Cell(Holder):
    """A variable of a closure."""

    def read(self):
        try:
            return (self.held.cell_contents,)
        except ValueError:  # not set yet
            return ()

    def write(self, content) -> None:
        if content:
            self.held.cell_contents = content[0]
        else:
            del self.held.cell_contents


class Generator(Holder):
    """A generator of random numbers."""

    def read(self):
        return self.held.get_state()

    def write(self, content) -> None:
        self.held.set_state(content)

    def values(self):
        return ()

    def changed(self) -> bool:
        return not torch.equal(self.read(), self.content)


@lru_cache(maxsize=4096)
def _own(name: str) -> bool:
    return name not in OF_MODULES and not name.startswith(OF_LOADING)


def _identical(one, other) -> bool:
    """Whether two contents are the very same things."""
    if isinstance(one, dict):
        return list(one) == list(other) and _identical(list(one.values()), list(other.values()))
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def reachable(roots: Iterable[object], modules: Iterable[nn.Module] = ()) -> Iterator[Holder]:
    """Every holder within reach of `roots` and of the own attributes of `modules`."""
    seen: set[int] = set()
    todo: deque[tuple[object, object]] = deque((root, None) for root in roots)
    for module in modules:
        holder = Attributes(module)
        yield holder
        todo.extend((value, module) for value in holder.values())
    while todo and len(seen) < MOST:
        value, owner = todo.popleft()
        if isinstance(value, (*PLAIN, *DATA)) or id(value) in seen:
            continue
        seen.add(id(value))
        for holder in _holders(value, owner):
            yield holder
            todo.extend((inner, holder.owner) for inner in holder.values())
        todo.extend((inner, value) for inner in _leads_to(value))


def _holders(value: object, owner: object) -> Iterator[Holder]:
    if isinstance(value, dict):
        yield Mapping(value, owner)
    elif isinstance(value, list | set | deque):
        yield Items(value, owner)
    elif isinstance(value, types.CellType):
        yield Cell(value, owner)
    elif isinstance(value, torch.Generator):
        yield Generator(value, owner)
    elif isinstance(value, types.FunctionType):
        if not _of_a_library(value.__module__):
            yield Mapping(vars(value), value)
            yield Globals(value)
    elif not _of_a_library(type(value).__module__) and hasattr(value, "__dict__"):
        yield Mapping(vars(value), value)


def _leads_to(value: object) -> Iterable[object]:
    """What else a value that does not change leads to."""
    if isinstance(value, tuple | frozenset):
        return value
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    if isinstance(value, functools.partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, types.FunctionType):
        inner = [*(value.__closure__ or ()), *(value.__defaults__ or ())]
        if not _of_a_library(value.__module__):
            named = _globals_of(value.__code__, "_GLOBAL")
            content = (value.__globals__.get(name) for name in named)
            inner += [each for each in content if isinstance(each, dict | list | set | deque)]
        return inner
    return ()


def _of_a_library(module: str | None) -> bool:
    name = module or ""
    return name.split(".")[0] in LIBRARIES and not name.startswith(STATEFUL)


@lru_cache(maxsize=4096)
def _globals_of(code: types.CodeType, kind: str) -> tuple[str, ...]:
    """The globals that a function and those within it load or store."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(kind)}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals_of(constant, kind))
    return tuple(sorted(names))

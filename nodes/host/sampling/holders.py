"""What can change and be put back: containers, attributes, variables, generators of random numbers.

A `Holder` is one of them with what it held when it was found, shallow: what is held is reached, and
found, by itself.
"""

from __future__ import annotations

import dis
import pickle
import random
import sys
import types
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import nn

GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
OF_MODULES = frozenset(vars(nn.Module()))  # what every module has: none of a pack's state
OF_LOADING = ("comfy", "prev_comfy", "weight_", "bias_", "_v", "_prefetch", "pin")
OURS = ("forward", "cast_bias_weight")  # set for a climb by `by_block` and by `Weights`


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


class Slots(Mapping):
    """The attributes of an object whose class declares them as slots."""

    def read(self):
        return {name: getattr(self.held, name) for name in self.names() if self._has(name)}

    def write(self, content) -> None:
        for name in self.names():
            if name in content:
                object.__setattr__(self.held, name, content[name])
            elif self._has(name):
                object.__delattr__(self.held, name)

    def _has(self, name: str) -> bool:
        return hasattr(self.held, name)

    def names(self) -> list[str]:
        return slots_of(type(self.held))


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
        self._names = globals_of(function.__code__, "STORE_GLOBAL")
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
    """A generator of random numbers: torch's, numpy's or Python's."""

    def read(self):
        if isinstance(self.held, np.random.Generator):
            return pickle.dumps(self.held.bit_generator.state)
        name = "getstate" if isinstance(self.held, random.Random) else "get_state"
        return pickle.dumps(getattr(self.held, name)())

    def write(self, content) -> None:
        state = pickle.loads(content)
        if isinstance(self.held, np.random.Generator):
            self.held.bit_generator.state = state
        else:
            name = "setstate" if isinstance(self.held, random.Random) else "set_state"
            getattr(self.held, name)(state)

    def values(self):
        return ()

    def changed(self) -> bool:
        return self.read() != self.content


class Running(Holder):
    """An iterator or a generator function's, which cannot be set back."""

    def read(self):
        return ()

    def write(self, content) -> None:
        pass


@lru_cache(maxsize=4096)
def _own(name: str) -> bool:
    return name not in OF_MODULES and not name.startswith((*OF_LOADING, *OURS))


def _identical(one, other) -> bool:
    """Whether two contents are the very same things."""
    if isinstance(one, dict):
        return list(one) == list(other) and _identical(list(one.values()), list(other.values()))
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


@lru_cache(maxsize=4096)
def globals_of(code: types.CodeType, kind: str) -> tuple[str, ...]:
    """The globals that a function and those within it load or store."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname.endswith(kind)}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(globals_of(constant, kind))
    return tuple(sorted(names))


@lru_cache(maxsize=4096)
def slots_of(cls: type) -> list[str]:
    """Slots that a class and those it is made of declare."""
    if cls.__module__ in sys.stdlib_module_names:
        return []
    names: list[str] = []
    for each in cls.__mro__:
        declared = vars(each).get("__slots__", ())
        names += [declared] if isinstance(declared, str) else declared
    return [name for name in names if name not in ("__dict__", "__weakref__")]

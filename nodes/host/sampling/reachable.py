"""Everything changeable within reach of some objects: containers, closures, attributes, globals."""

from __future__ import annotations

import functools
import random
import types
from collections import deque
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from torch import Tensor, nn

from .holders import (
    GENERATORS,
    Attributes,
    Cell,
    Generator,
    Globals,
    Holder,
    Items,
    Mapping,
    Running,
    Slots,
    globals_of,
    slots_of,
)

MOST = 20_000  # objects: what is larger is data, not state
LIBRARIES = ("torch", "numpy", "comfy", "builtins", "transformers", "logging", "threading", "PIL")
STATEFUL = ("comfy.hooks", "comfy.context_windows")  # of the host, but with state
PLAIN = (str, bytes, int, float, complex, bool, type(None), type, types.ModuleType)
DATA = (Tensor, np.ndarray, torch.dtype, torch.device, nn.Module)


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
    elif isinstance(value, GENERATORS) and not isinstance(value, random.SystemRandom):
        yield Generator(value, owner)
    elif isinstance(value, Iterator) and type(value).__module__ in ("builtins", "itertools"):
        yield Running(value, owner)
    elif isinstance(value, types.FunctionType):
        if not _of_a_library(value.__module__):
            yield Mapping(vars(value), value)
            yield Globals(value)
    elif not _of_a_library(type(value).__module__):
        if hasattr(value, "__dict__"):
            yield Mapping(vars(value), value)
        if slots_of(type(value)):
            yield Slots(value, value)


def _leads_to(value: object) -> Iterable[object]:
    """What else a value that does not change leads to."""
    if isinstance(value, tuple | frozenset):
        return value
    if isinstance(value, types.MethodType):
        return value.__self__, value.__func__
    if isinstance(value, types.BuiltinMethodType):
        return (value.__self__,)
    if isinstance(value, functools.partial):
        return value.func, *value.args, *value.keywords.values()
    if isinstance(value, types.FunctionType):
        inner = [*(value.__closure__ or ()), *(value.__defaults__ or ())]
        if not _of_a_library(value.__module__):
            named = globals_of(value.__code__, "_GLOBAL")
            content = (value.__globals__.get(name) for name in named)
            inner += [each for each in content if _is_kept(each, value)]
        return inner
    return ()


def _is_kept(value: object, function: types.FunctionType) -> bool:
    """Whether a global that a function loads may be state: a container, or the pack's own."""
    if isinstance(value, (dict, list, set, deque, *GENERATORS)):
        return True
    module = value.__module__ if isinstance(value, types.FunctionType) else type(value).__module__
    pack, own = ((name or "").split(".")[0] for name in (module, function.__module__))
    return bool(pack) and pack == own and not isinstance(value, type)


def _of_a_library(module: str | None) -> bool:
    name = module or ""
    return name.split(".")[0] in LIBRARIES and not name.startswith(STATEFUL)

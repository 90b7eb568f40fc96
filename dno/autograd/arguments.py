"""The tensors in a call's arguments, in any nesting, and what a call writes into containers."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

Build = Callable[[Sequence["Tensor | None"], dict], object]
Change = tuple[int, "dict | list", tuple]
_GONE = object()


class Nested:
    """A value without its tensors, to be built again with others.

    Tensors are found in tuples, lists, dicts, dataclasses and plain objects whose own attributes
    carry a gradient. A container that occurs twice is one container again when built.
    """

    def __init__(self, value: object):
        self._tensors: list[Tensor] = []
        self._containers: list[dict | list] = []
        self._indices: dict[int, int] = {}
        self._shells: list[tuple[dict | list, dict]] = []
        self._build = self._flatten(value)

    def taken(self) -> tuple[list[Tensor], list[dict | list]]:
        """The tensors, and the lists and dicts that held them; it lets go of both."""
        taken = self._tensors, self._containers
        self._tensors, self._containers = [], []
        return taken

    def build(self, tensors: Sequence[Tensor | None]) -> tuple[Any, Built]:
        """The value with other tensors, in containers of its own."""
        built = Built()
        return self._build(tensors, built.containers), built

    def _flatten(self, value: object) -> Build:
        if isinstance(value, Tensor):
            index = len(self._tensors)
            self._tensors.append(value)
            return lambda tensors, containers: tensors[index]
        if isinstance(value, dict | list):
            return self._container(value)
        if isinstance(value, tuple):
            parts = [self._flatten(part) for part in value]
            kind = getattr(type(value), "_make", type(value))  # a named tuple takes them one by one
            return lambda tensors, containers: kind([part(tensors, containers) for part in parts])
        if _is_record(value):
            return self._record(value)
        return lambda tensors, containers: value

    def _container(self, value: dict | list) -> Build:
        index = self._indices.get(id(value))
        if index is None:
            index = self._indices[id(value)] = len(self._shells)
            shell: Any = copy.copy(value)
            parts: dict[Any, Build] = {}
            self._containers.append(value)
            self._shells.append((shell, parts))
            for key, item in _items(value):
                shell[key] = None
                parts[key] = self._flatten(item)

        def build(tensors: Sequence[Tensor | None], containers: dict) -> dict | list:
            if index not in containers:
                shell, parts = self._shells[index]
                container: Any = copy.copy(shell)
                held: dict[Any, object] = {}
                containers[index] = container, held
                for key, part in parts.items():
                    held[key] = container[key] = part(tensors, containers)
            return containers[index][0]

        return build

    def _record(self, value: object) -> Build:
        shell, parts = copy.copy(value), {}
        for name, item in vars(value).items():
            object.__setattr__(shell, name, None)
            parts[name] = self._flatten(item)

        def build(tensors: Sequence[Tensor | None], containers: dict) -> object:
            record = copy.copy(shell)
            for name, part in parts.items():
                object.__setattr__(record, name, part(tensors, containers))
            return record

        return build


class Built:
    """The containers of a built value: index -> itself, and what was put into it."""

    def __init__(self) -> None:
        self.containers: dict[int, tuple[dict | list, dict]] = {}

    def changes(self) -> list[Change]:
        """What a call did to them since: index, new items (a list: all), keys taken out."""
        changes: list[Change] = []
        for index, (container, held) in sorted(self.containers.items(), key=lambda item: item[0]):
            now = dict(_items(container))
            new = {key: item for key, item in now.items() if item is not held.get(key, _GONE)}
            gone = tuple(key for key in held if key not in now)
            if isinstance(container, list) and (new or gone):
                changes.append((index, list(container), ()))
            elif new or gone:
                changes.append((index, new, gone))
        return changes


def write(containers: Sequence[Any], changes: Iterable[Change]) -> None:
    """Make the same changes to other containers, in place."""
    for index, new, gone in changes:
        if isinstance(new, list):
            containers[index][:] = new
            continue
        containers[index].update(new)
        for key in gone:
            containers[index].pop(key, None)


def _items(container: dict | list) -> Iterable[tuple]:
    return list(container.items() if isinstance(container, dict) else enumerate(container))


def _is_record(value: object) -> bool:
    if isinstance(value, type | nn.Module) or not hasattr(value, "__dict__"):
        return False
    if dataclasses.is_dataclass(value):
        return True
    return any(isinstance(item, Tensor) and item.requires_grad for item in vars(value).values())

"""What a preset is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..method import Method


@dataclass(frozen=True)
class Penalty:
    """A regularizer by its class's name, with its weight and fields."""

    name: str
    weight: float = 1.0
    fields: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Preset:
    """A published way to better noise, with its own numbers.

    source:    where the numbers are from, and which of them are not.
    method:    what is done.
    scope:     which part of the noise moves.
    penalties: regularizers that belong to it.
    carried:   which evaluations of the network carry the gradient: "all", "first" or "last N".
    sampling:  the sampling that its paper used, in words.
    """

    title: str
    source: str
    method: Method
    scope: str = "all"
    penalties: tuple[Penalty, ...] = ()
    carried: str = "all"
    sampling: str = ""

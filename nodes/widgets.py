"""Fields as a node's widgets and sockets, and their values as the engine holds them.

A new kind of field is one function here that makes its widget, and, where ComfyUI holds its values
in another form, one that converts them.
"""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from functools import singledispatch

from comfy_api.latest import io

from ..dno.fields import (
    Choice,
    Colour,
    Field,
    Hidden,
    Image,
    Mask,
    Model,
    Range,
    Switch,
    Terms,
    Text,
    fields_of,
)
from ..dno.objective import Weighted, combine
from ..rewards.models.vision import VisionEncoder
from .host.compat import supported
from .host.judges.clip_vision import as_encoder
from .schema import RewardModelSocket, RewardSocket, to_image, to_mask

_SEVERAL = 4


def inputs_of(cls: type) -> list[io.Input]:
    """The widgets and sockets of a dataclass, in the order of its fields."""
    hints = typing.get_type_hints(cls)
    inputs: list[io.Input] = []
    for name, (metadata, default) in fields_of(cls).items():
        if isinstance(metadata, Terms):
            inputs += several("reward", RewardSocket)
        elif not isinstance(metadata, Hidden):
            inputs.append(_input(metadata, name, _common(metadata, default), hints[name] is int))
    return inputs


def _common(metadata: Field, default: object) -> dict[str, object]:
    """What the inputs of all kinds of fields are told."""
    common: dict[str, object] = {"tooltip": metadata.help or None}
    if metadata.optional or default is None:
        common["optional"] = True
    if default is not None and default is not dataclasses.MISSING:
        common["default"] = default
    if metadata.advanced:
        common["advanced"] = True
    return common


def take(cls: type, values: dict[str, object]) -> dict[str, object]:
    """Those of a node's values that are fields of `cls`, out of `values`."""
    own: dict[str, object] = {}
    for name, (metadata, _) in fields_of(cls).items():
        if isinstance(metadata, Terms):
            own[name] = together("reward", values)
        elif name in values:
            own[name] = _converted(metadata, values.pop(name))
    return own


def several(kind: str, socket: type[io.ComfyTypeIO]) -> list[io.Input]:
    """Sockets for up to four of a kind, and a weight for each."""
    sockets = [
        socket.Input(
            f"{kind}_{index}",
            optional=index > 1,
            tooltip=f"A {kind}, or several that were combined before.",
        )
        for index in range(1, _SEVERAL + 1)
    ]
    lowest = -100.0 if kind == "reward" else 0.0
    tooltip = f"Multiplies every term of {kind}_{{}}, on top of its own weight."
    weights = [
        weight(lowest, 100.0, tooltip.format(index), f"weight_{index}")
        for index in range(1, _SEVERAL + 1)
    ]
    return [*sockets, *weights]


def together(kind: str, values: dict[str, object]) -> dict[str, Weighted]:
    """What is connected to those sockets, weighted, out of `values`."""
    groups: list[tuple[float, Mapping[str, Weighted]]] = []
    for index in range(1, _SEVERAL + 1):
        terms = values.pop(f"{kind}_{index}", None)
        factor = values.pop(f"weight_{index}", 1.0)
        if isinstance(terms, Mapping):
            groups.append((float(typing.cast(float, factor)), terms))
    return combine(*groups)


def weight(lowest: float, highest: float, tooltip: str, name: str = "weight") -> io.Float.Input:
    """How much a term counts."""
    return io.Float.Input(name, default=1.0, min=lowest, max=highest, step=0.01, tooltip=tooltip)


@singledispatch
def _input(metadata: Field, name: str, common: dict[str, object], whole: bool) -> io.Input:
    """The widget or socket of one field; `common`: its tooltip and default; `whole`: of an int."""
    raise TypeError(f"{name}: {type(metadata).__name__} has no widget.")


@_input.register
def _(metadata: Image, name: str, common: dict[str, object], whole: bool) -> io.Input:
    return supported(io.Image.Input, name, **common)


@_input.register
def _(metadata: Mask, name: str, common: dict[str, object], whole: bool) -> io.Input:
    return supported(io.Mask.Input, name, **common)


@_input.register
def _(metadata: Model, name: str, common: dict[str, object], whole: bool) -> io.Input:
    if VisionEncoder in metadata.kinds:
        return supported(io.MultiType.Input, name, [RewardModelSocket, io.ClipVision], **common)
    return supported(RewardModelSocket.Input, name, **common)


@_input.register
def _(metadata: Text, name: str, common: dict[str, object], whole: bool) -> io.Input:
    return supported(io.String.Input, name, multiline=True, **({"default": ""} | common))


@_input.register
def _(metadata: Range, name: str, common: dict[str, object], whole: bool) -> io.Input:
    number, convert = (io.Int, int) if whole else (io.Float, float)
    bounds = {"min": metadata.minimum, "max": metadata.maximum, "step": metadata.step}
    return supported(
        number.Input, name, **common, **{key: convert(bound) for key, bound in bounds.items()}
    )


@_input.register
def _(metadata: Choice, name: str, common: dict[str, object], whole: bool) -> io.Input:
    return supported(io.Combo.Input, name, options=list(metadata.options), **common)


@_input.register
def _(metadata: Switch, name: str, common: dict[str, object], whole: bool) -> io.Input:
    return supported(io.Boolean.Input, name, **common)


@_input.register
def _(metadata: Colour, name: str, common: dict[str, object], whole: bool) -> io.Input:
    return supported(io.String.Input, name, **common)


@singledispatch
def _converted(metadata: Field, value: object) -> object:
    """A value of ComfyUI as the engine holds it."""
    return value


@_converted.register
def _(metadata: Image, value: object) -> object:
    return None if value is None else to_image(value)


@_converted.register
def _(metadata: Mask, value: object) -> object:
    return None if value is None else to_mask(value)


@_converted.register
def _(metadata: Model, value: object) -> object:
    return as_encoder(value)

"""What a user may set: ranges and choices, written beside the field that they bound.

A reward or regularizer is a frozen dataclass whose fields carry these as `Annotated` metadata, for
example `target: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0`. The node layer turns them
into widgets; nothing here knows about nodes.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both inclusive, and the step of its widget."""

    minimum: float
    maximum: float
    step: float = 0.01
    help: str = ""


@dataclass(frozen=True)
class Choice:
    """One of a few names."""

    options: tuple[str, ...]
    help: str = ""


@dataclass(frozen=True)
class Colour:
    """An sRGB colour written `#rrggbb`."""

    help: str = ""


@dataclass(frozen=True)
class Image:
    """A picture: a float tensor (B,3,H,W), sRGB in [0,1]."""

    help: str = ""


@dataclass(frozen=True)
class Mask:
    """A mask: a float tensor (B,H,W) in [0,1]."""

    help: str = ""


@dataclass(frozen=True)
class Text:
    """Words of any length, at least one."""

    help: str = ""


@dataclass(frozen=True)
class Model:
    """A network of one of these classes."""

    kinds: tuple[type, ...]
    help: str = ""


@dataclass(frozen=True)
class Switch:
    """On or off."""

    help: str = ""


def fields_of(cls: type) -> dict[str, tuple[object, object]]:
    """Name -> (metadata, default) of each `Annotated` field of dataclass `cls`, in order.

    The default is `dataclasses.MISSING` where the field has none. Raises TypeError for a field
    without metadata: every field of a reward is a widget or a socket.
    """
    hints = typing.get_type_hints(cls, include_extras=True)
    described: dict[str, tuple[object, object]] = {}
    for field in dataclasses.fields(cls):
        metadata = getattr(hints[field.name], "__metadata__", ())
        if not metadata:
            raise TypeError(
                f"{cls.__name__}.{field.name} needs Annotated[..., Range(...)] or the like"
            )
        described[field.name] = (metadata[0], field.default)
    return described


def check_fields(instance: object) -> None:
    """Raise ValueError, naming the field and the mend, if a value does not suit its metadata."""
    name = type(instance).__name__
    for field, (metadata, default) in fields_of(type(instance)).items():
        value = getattr(instance, field)
        if value is None and default is None:
            continue
        if isinstance(metadata, Range) and not metadata.minimum <= value <= metadata.maximum:
            raise ValueError(
                f"{name}: {field} is {value}; it must lie between {metadata.minimum} and "
                f"{metadata.maximum}."
            )
        if isinstance(metadata, Choice) and value not in metadata.options:
            raise ValueError(
                f"{name}: {field} is {value!r}; choose one of {', '.join(metadata.options)}."
            )
        if isinstance(metadata, Colour) and not re.fullmatch("#[0-9a-fA-F]{6}", str(value)):
            raise ValueError(
                f"{name}: {field} is {value!r}; write it as #rrggbb, for example #ff8800."
            )
        if isinstance(metadata, Text) and not str(value).strip():
            raise ValueError(f"{name}: {field} is empty; write what the picture shall show.")
        if isinstance(metadata, Model) and not isinstance(value, metadata.kinds):
            wanted = " or ".join(getattr(kind, "title", kind.__name__) for kind in metadata.kinds)
            found = getattr(value, "title", type(value).__name__)
            raise ValueError(f"{name}: {field} is of kind {found}; connect a {wanted} model.")
        if isinstance(metadata, Image | Mask) and value is not None:
            _check_picture(name, field, value, isinstance(metadata, Image))


def _check_picture(name: str, field: str, value: torch.Tensor, is_image: bool) -> None:
    shape = tuple(value.shape)
    fits = len(shape) == 4 and shape[1] == 3 if is_image else len(shape) == 3
    if not fits or 0 in shape:
        wanted = "(B,3,H,W) as an image" if is_image else "(B,H,W) as a mask"
        raise ValueError(f"{name}: {field} has shape {shape}; give it {wanted}, not empty.")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name}: {field} contains NaN or infinity; give it a picture without.")

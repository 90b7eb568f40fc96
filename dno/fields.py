"""What a user may set: ranges and choices, written beside the field that they bound.

A reward, a regularizer or an optimizer is a frozen dataclass whose fields carry these as
`Annotated` metadata, for example `target: Annotated[float, Range(0.0, 1.0, step=0.01)] = 1.0`.
`Declared` checks values against them and the node layer turns them into widgets; nothing here
knows about nodes.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch


@dataclass(frozen=True, kw_only=True)
class Field(ABC):
    """A kind of field.

    optional: its input may be missing: of a field that is newer than workflows that were saved.
    advanced: its widget folds away, where ComfyUI can do that.
    """

    optional: bool = False
    advanced: bool = False

    @property
    @abstractmethod
    def help(self) -> str:
        """What it does to the picture."""

    @abstractmethod
    def problem(self, value: object) -> str | None:
        """What is wrong with a value and the mend, as the end of "Reward: field ..."; or None."""


@dataclass(frozen=True)
class Range(Field):
    """Bounds of a number, both inclusive, and the step of its widget.

    >>> Range(0.0, 1.0).problem(2.0)
    'is 2.0; it must lie between 0.0 and 1.0.'
    """

    minimum: float
    maximum: float
    step: float = 0.01
    help: str = ""

    def problem(self, value: object) -> str | None:
        if isinstance(value, int | float) and self.minimum <= value <= self.maximum:
            return None
        return f"is {value}; it must lie between {self.minimum} and {self.maximum}."


@dataclass(frozen=True)
class Choice(Field):
    """One of a few names.

    >>> Choice(("up", "down")).problem("left")
    "is 'left'; choose one of up, down."
    """

    options: tuple[str, ...]
    help: str = ""

    def problem(self, value: object) -> str | None:
        if value in self.options:
            return None
        return f"is {value!r}; choose one of {', '.join(self.options)}."


@dataclass(frozen=True)
class Switch(Field):
    """On or off."""

    help: str = ""

    def problem(self, value: object) -> str | None:
        return None


@dataclass(frozen=True)
class Colour(Field):
    """An sRGB colour written `#rrggbb`.

    >>> Colour().problem("orange")
    "is 'orange'; write it as #rrggbb, for example #ff8800."
    """

    help: str = ""

    def problem(self, value: object) -> str | None:
        if re.fullmatch("#[0-9a-fA-F]{6}", str(value)):
            return None
        return f"is {value!r}; write it as #rrggbb, for example #ff8800."


@dataclass(frozen=True)
class Text(Field):
    """Words of any length, at least one.

    >>> Text().problem(" ")
    'is empty; write what the picture shall show.'
    """

    help: str = ""

    def problem(self, value: object) -> str | None:
        return None if str(value).strip() else "is empty; write what the picture shall show."


@dataclass(frozen=True)
class Model(Field):
    """A network of one of these classes."""

    kinds: tuple[type, ...]
    help: str = ""

    def problem(self, value: object) -> str | None:
        if isinstance(value, self.kinds):
            return None
        wanted = " or ".join(getattr(kind, "title", kind.__name__) for kind in self.kinds)
        given = getattr(value, "title", type(value).__name__)
        return f"is of kind {given}; connect {article(wanted)} {wanted} model."


@dataclass(frozen=True)
class Image(Field):
    """A picture: a float tensor (B,3,H,W), sRGB in [0,1].

    >>> Image().problem(torch.zeros(4, 4))
    'has shape (4, 4); give it (B,3,H,W) as an image, not empty.'
    """

    help: str = ""

    def problem(self, value: object) -> str | None:
        return _picture_problem(value, (3,), "(B,3,H,W) as an image")


@dataclass(frozen=True)
class Mask(Field):
    """A mask: a float tensor (B,H,W) in [0,1].

    >>> Mask().problem(torch.zeros(1, 4, 0))
    'has shape (1, 4, 0); give it (B,H,W) as a mask, not empty.'
    """

    help: str = ""

    def problem(self, value: object) -> str | None:
        return _picture_problem(value, (), "(B,H,W) as a mask")


@dataclass(frozen=True)
class Terms(Field):
    """Several rewards, each with its weight, by name."""

    help: str = ""

    def problem(self, value: object) -> str | None:
        return None


@dataclass(frozen=True)
class Hidden(Field):
    """What code sets, and no user: it has no widget."""

    help: str = ""

    def problem(self, value: object) -> str | None:
        return None


def fields_of(cls: type) -> dict[str, tuple[Field, object]]:
    """Name -> (metadata, default) of each field of dataclass `cls`, in order.

    The default is `dataclasses.MISSING` where the field has none. Raises TypeError for a field
    without metadata: every field of what a user builds is a widget or a socket.

    >>> list(fields_of(Brightness))
    ['target']
    """
    described = _described(cls)
    for field in dataclasses.fields(cls):
        if field.name not in described:
            raise TypeError(
                f"{cls.__name__}.{field.name} needs Annotated[..., Range(...)] or the like"
            )
    return described


def check_fields(instance: object) -> None:
    """Raise ValueError, naming the field and the mend, if a value does not suit its metadata."""
    for field, (metadata, default) in _described(type(instance)).items():
        value = getattr(instance, field)
        if value is None and default is None:
            continue
        problem = metadata.problem(value)
        if problem:
            raise ValueError(f"{type(instance).__name__}: {field} {problem}")


def _described(cls: type) -> dict[str, tuple[Field, object]]:
    """Of those fields that have metadata: code makes some things that no user builds."""
    if not dataclasses.is_dataclass(cls):
        return {}
    hints = typing.get_type_hints(cls, include_extras=True)
    described: dict[str, tuple[Field, object]] = {}
    for field in dataclasses.fields(cls):
        for metadata in getattr(hints[field.name], "__metadata__", ()):
            if isinstance(metadata, Field):
                described[field.name] = (metadata, field.default)
    return described


def _picture_problem(value: object, channels: tuple[int, ...], wanted: str) -> str | None:
    if not isinstance(value, torch.Tensor):
        kind = type(value).__name__
        return f"is {article(kind)} {kind}; give it {wanted}."
    shape = tuple(value.shape)
    if len(shape) != 3 + len(channels) or shape[1:-2] != channels or 0 in shape:
        return f"has shape {shape}; give it {wanted}, not empty."
    if not torch.isfinite(value).all():
        return "contains NaN or infinity; give it a picture without."
    return None


def article(noun: str) -> str:
    """The word before a noun; capitals are spelt.

    >>> [article(noun) for noun in ("aesthetic predictor", "CLIP", "MPS", "ImageReward")]
    ['an', 'a', 'an', 'an']
    """
    spelt = noun[:2].isupper()
    return "an" if noun[:1] in ("AEFHILMNORSX" if spelt else "aeioAEIO") else "a"

"""A frozen dataclass becomes a ComfyUI node by its name, docstring and fields alone."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable, Mapping, Sequence

import torch
from comfy_api.latest import io

from ..dno.fields import Choice, Colour, Image, Mask, Model, Range, Switch, Text, fields_of
from ..dno.objective import Reward, Weighted
from ..rewards.models.vision import VisionEncoder
from .host.judges.clip_vision import as_encoder
from .host.judges.reward_models import bring_in
from .schema import (
    CATEGORY,
    RegularizerSocket,
    RewardModelSocket,
    RewardSocket,
    output,
    schema,
    supported,
    to_image,
    to_mask,
)


class Modifier(typing.Protocol):
    """Makes a reward of a reward; `label` makes the new term's name of the old one's."""

    label: str

    def __call__(self, reward: Reward) -> Reward: ...


def reward_node(reward: type) -> type[io.ComfyNode]:
    """The node `DNO<Name>Reward` of a reward class."""
    weight = _weight(
        -100.0, 100.0, "How much this reward counts; a negative weight turns it around."
    )
    return _node(reward, "Reward", RewardSocket, _term(reward), after=[weight])


def regularizer_node(regularizer: type) -> type[io.ComfyNode]:
    """The node `DNO<Name>Regularizer` of a regularizer class."""
    weight = _weight(
        0.0, 1000.0, "How strictly the noise is kept Gaussian: higher protects the picture."
    )
    return _node(regularizer, "Regularizer", RegularizerSocket, _term(regularizer), after=[weight])


def modifier_node(modifier: type) -> type[io.ComfyNode]:
    """The node `DNO<Name>Reward` of a class that makes a reward of a reward."""

    def deliver(built: Modifier, reward: Mapping[str, Weighted]) -> dict[str, Weighted]:
        return {
            built.label.format(name): Weighted(term.weight, built(term.score))
            for name, term in reward.items()
        }

    socket = RewardSocket.Input(
        "reward", tooltip="A reward; of several, each is changed by itself."
    )
    return _node(modifier, "Reward", RewardSocket, deliver, before=[socket])


def plain_node(cls: type, kind: str, socket: type[io.ComfyTypeIO]) -> type[io.ComfyNode]:
    """The node `DNO<Name><kind>` that hands on an instance of `cls`, such as an optimizer."""
    return _node(cls, kind, socket, lambda built: built)


def words(cls: type) -> str:
    """`LowFrequencyLayout` -> `Low Frequency Layout`, `JPEGSize` -> `JPEG Size`; or its `title`."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", cls.__name__)
    return vars(cls).get("title", spaced)


def term_name(cls: type) -> str:
    """The plain name of a term in plots and reports: `low frequency layout`, `JPEG size`."""
    if "title" in vars(cls):
        return words(cls)
    return " ".join(word if word.isupper() else word.lower() for word in words(cls).split())


def _term(cls: type) -> Callable[..., dict[str, Weighted]]:
    return lambda built, weight: {term_name(cls): Weighted(weight, built)}


def _weight(lowest: float, highest: float, tooltip: str) -> io.Float.Input:
    return io.Float.Input(
        "weight", default=1.0, min=lowest, max=highest, step=0.01, tooltip=tooltip
    )


def _node(
    cls: type,
    kind: str,
    socket: type[io.ComfyTypeIO],
    deliver: Callable[..., object],
    before: Sequence[io.Input] = (),
    after: Sequence[io.Input] = (),
) -> type[io.ComfyNode]:
    """`cls` as a node; `kind` is the last word of its id, its display name and its category.

    `deliver(instance, **values of the inputs before and after the fields)` gives the output.
    """
    described = fields_of(cls)
    fields = [_input(cls, name, *described[name]) for name in described]
    node_id, title = f"DNO{cls.__name__}{kind}", f"{words(cls)} {kind}"

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(node) -> io.Schema:
            return schema(
                node_id=node_id,
                display_name=title,
                category=f"{CATEGORY}/{kind.lower()}s",
                description=_summary(cls),
                search_aliases=["DNO", "Direct Noise Optimization", kind.lower()],
                inputs=[*before, *fields, *after],
                outputs=[output(socket, kind.lower())],
            )

        @classmethod
        def execute(node, **values: object) -> io.NodeOutput:
            own = {name: as_encoder(values.pop(name)) for name in described if name in values}
            bring_in(values | own)
            with torch.inference_mode(False), torch.no_grad():
                return io.NodeOutput(deliver(_build(cls, own), **values))

    Node.__name__ = Node.__qualname__ = node_id
    Node.__doc__ = inspect.getdoc(cls)
    return Node


def _build(cls: type, values: dict[str, object]) -> object:
    """`cls` from a node's values, with pictures as (B,3,H,W) that autograd may use."""
    described = fields_of(cls)
    convert = {Image: to_image, Mask: to_mask}
    ready = {}
    for name, value in values.items():
        prepare = convert.get(type(described[name][0]))
        ready[name] = prepare(value) if prepare and value is not None else value
    return cls(**ready)


def _summary(cls: type) -> str:
    """The first paragraph of the docstring: one sentence."""
    return " ".join((inspect.getdoc(cls) or "").split("\n\n")[0].split())


def _input(cls: type, name: str, metadata: object, default: object) -> io.Input:
    """The widget or socket of one field."""
    common: dict[str, object] = {"tooltip": getattr(metadata, "help", "") or None}
    if isinstance(metadata, Image | Mask):
        common["optional"] = default is None
        return (io.Image if isinstance(metadata, Image) else io.Mask).Input(name, **common)
    if isinstance(metadata, Model):
        common["optional"] = default is None
        if VisionEncoder in metadata.kinds:
            return io.MultiType.Input(name, [RewardModelSocket, io.ClipVision], **common)
        return RewardModelSocket.Input(name, **common)
    if isinstance(metadata, Text):
        given = "" if default is dataclasses.MISSING else default
        return io.String.Input(name, multiline=True, default=given, **common)
    if default is not dataclasses.MISSING:
        common["default"] = default
    if isinstance(metadata, Range):
        whole = typing.get_type_hints(cls)[name] is int
        number, convert = (io.Int, int) if whole else (io.Float, float)
        bounds = {"min": metadata.minimum, "max": metadata.maximum, "step": metadata.step}
        return number.Input(
            name, **common, **{key: convert(bound) for key, bound in bounds.items()}
        )
    if isinstance(metadata, Choice):
        return io.Combo.Input(name, options=list(metadata.options), **common)
    if isinstance(metadata, Switch):
        return io.Boolean.Input(name, **common)
    if isinstance(metadata, Colour):
        return supported(io.String.Input, name, **common)
    raise TypeError(f"{cls.__name__}.{name}: {type(metadata).__name__} has no widget.")

"""A frozen dataclass becomes a ComfyUI node by its name, docstring and fields alone."""

from __future__ import annotations

import dataclasses
import inspect
import re
import typing

import torch
from comfy_api.latest import io

from ..dno.fields import Choice, Colour, Image, Mask, Range, Switch, fields_of
from ..dno.objective import Weighted
from .schema import CATEGORY, RegularizerSocket, RewardSocket, schema, supported, to_image, to_mask


def reward_node(reward: type) -> type[io.ComfyNode]:
    """The node `DNO<Name>Reward` of a reward class."""
    weight = io.Float.Input(
        "weight",
        default=1.0,
        min=-100.0,
        max=100.0,
        step=0.01,
        tooltip="How much this reward counts against others; a negative weight turns it around.",
    )
    return _node(reward, "Reward", RewardSocket, weight)


def regularizer_node(regularizer: type) -> type[io.ComfyNode]:
    """The node `DNO<Name>Regularizer` of a regularizer class."""
    weight = io.Float.Input(
        "weight",
        default=1.0,
        min=0.0,
        max=1000.0,
        step=0.01,
        tooltip="How strictly the noise is kept Gaussian: higher protects the picture.",
    )
    return _node(regularizer, "Regularizer", RegularizerSocket, weight)


def words(name: str) -> str:
    """`LowFrequencyLayout` -> `Low Frequency Layout`, `JPEGSize` -> `JPEG Size`."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name)


def term_name(cls: type) -> str:
    """The plain name of a term in plots and reports: `low frequency layout`, `JPEG size`."""
    return " ".join(
        word if word.isupper() else word.lower() for word in words(cls.__name__).split()
    )


def plain_node(cls: type, kind: str, socket: type[io.ComfyTypeIO]) -> type[io.ComfyNode]:
    """The node `DNO<Name><kind>` that hands on an instance of `cls` itself, such as an optimizer."""
    return _node(cls, kind, socket, None)


def _node(
    term: type, kind: str, socket: type[io.ComfyTypeIO], weight: io.Float.Input | None
) -> type[io.ComfyNode]:
    """`term` as a node; `kind` is the last word of its id, its display name and its category."""
    described = fields_of(term)
    inputs = [_input(term, name, *described[name]) for name in described]
    inputs += [weight] if weight else []
    node_id = f"DNO{term.__name__}{kind}"

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(cls) -> io.Schema:
            return schema(
                node_id=node_id,
                display_name=f"{words(term.__name__)} {kind}",
                category=f"{CATEGORY}/{kind.lower()}s",
                description=_summary(term),
                search_aliases=["DNO", "Direct Noise Optimization", kind.lower()],
                inputs=inputs,
                outputs=[socket.Output(display_name=kind.lower())],
            )

        @classmethod
        def execute(cls, weight: float | None = None, **values: object) -> io.NodeOutput:
            built = _build(term, values)
            if weight is None:
                return io.NodeOutput(built)
            return io.NodeOutput({term_name(term): Weighted(weight, built)})

    Node.__name__ = Node.__qualname__ = node_id
    Node.__doc__ = inspect.getdoc(term)
    return Node


def _build(cls: type, values: dict[str, object]) -> object:
    """`cls` from a node's values, with pictures as (B,3,H,W) that autograd may use."""
    described = fields_of(cls)
    with torch.inference_mode(False), torch.no_grad():
        ready = {}
        for name, value in values.items():
            metadata = described[name][0]
            if isinstance(metadata, Image) and value is not None:
                value = to_image(typing.cast(torch.Tensor, value))
            elif isinstance(metadata, Mask) and value is not None:
                value = to_mask(typing.cast(torch.Tensor, value))
            ready[name] = value
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

"""A frozen dataclass becomes a ComfyUI node by its name, docstring and fields alone."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence

import torch
from comfy_api.latest import io

from ..dno.declared import Declared, summary, term_name, words
from ..dno.objective import Modifier, Weighted
from ..rewards import Minimum
from .host.judges.reward_models import bring_in
from .schema import CATEGORY, RegularizerSocket, RewardSocket, output, schema
from .widgets import inputs_of, take, weight

REWARDS, REGULARIZERS = f"{CATEGORY}/rewards", f"{CATEGORY}/regularizers"


def reward_node(reward: type[Declared]) -> type[io.ComfyNode]:
    """The node `DNO<Name>Reward` of a reward class."""
    counts = weight(
        -100.0, 100.0, "How much this reward counts; a negative weight turns it around."
    )
    return _node(reward, "Reward", RewardSocket, REWARDS, _term(reward), after=[counts])


def regularizer_node(regularizer: type[Declared]) -> type[io.ComfyNode]:
    """The node `DNO<Name>Regularizer` of a regularizer class."""
    counts = weight(
        0.0, 1000.0, "How strictly the noise is kept Gaussian: higher protects the picture."
    )
    deliver = _term(regularizer)
    return _node(
        regularizer, "Regularizer", RegularizerSocket, REGULARIZERS, deliver, after=[counts]
    )


def modifier_node(modifier: type[Declared]) -> type[io.ComfyNode]:
    """The node `DNO<Name>Reward` of a class that makes a reward of a reward."""

    def deliver(built: Modifier, reward: Mapping[str, Weighted]) -> dict[str, Weighted]:
        return {
            built.label.format(name): Weighted(term.weight, built(term.function))
            for name, term in reward.items()
        }

    socket = RewardSocket.Input(
        "reward", tooltip="A reward; of several, each is changed by itself."
    )
    return _node(modifier, "Reward", RewardSocket, REWARDS, deliver, before=[socket])


def minimum_node(minimum: type[Minimum]) -> type[io.ComfyNode]:
    """The node `DNO<Name>Reward` of a class that makes one reward of several."""

    def deliver(built: Minimum) -> dict[str, Weighted]:
        return {built.label: Weighted(1.0, built)}

    return _node(minimum, "Reward", RewardSocket, REWARDS, deliver)


def plain_node(
    cls: type[Declared], kind: str, socket: type[io.ComfyTypeIO], menu: str = ""
) -> type[io.ComfyNode]:
    """The node `DNO<Name><kind>` that hands on an instance of `cls`, such as an optimizer."""
    return _node(cls, kind, socket, menu or f"{CATEGORY}/{kind.lower()}s", lambda built: built)


def _term(cls: type[Declared]) -> Callable[..., dict[str, Weighted]]:
    return lambda built, weight: {term_name(cls): Weighted(weight, built)}


def _node(
    cls: type[Declared],
    kind: str,
    socket: type[io.ComfyTypeIO],
    menu: str,
    deliver: Callable[..., object],
    before: Sequence[io.Input] = (),
    after: Sequence[io.Input] = (),
) -> type[io.ComfyNode]:
    """`cls` as a node; `kind` is the last word of its id and of its display name, if any.

    `deliver(instance, **values of the inputs before and after the fields)` gives the output.
    """
    node_id, title = f"DNO{cls.__name__}{kind}", f"{words(cls)} {kind}".strip()
    noun = (kind or cls.__name__).lower()

    class Node(io.ComfyNode):
        @classmethod
        def define_schema(node) -> io.Schema:
            return schema(
                node_id=node_id,
                display_name=title,
                category="/".join(filter(None, (menu, cls.group))),
                description=summary(cls),
                search_aliases=cls.aliases,
                inputs=[*before, *inputs_of(cls), *after],
                outputs=[output(socket, noun)],
            )

        @classmethod
        def execute(node, **values: object) -> io.NodeOutput:
            own = take(cls, values)
            bring_in(values | own)
            with torch.inference_mode(False), torch.no_grad():
                return io.NodeOutput(deliver(cls(**own), **values))

    Node.__name__ = Node.__qualname__ = node_id
    Node.__doc__ = inspect.getdoc(cls)
    return Node

"""Nodes of several rewards or regularizers; chain them for more than four."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

from ..dno.objective import Weighted, combine
from ..rewards import Minimum
from .schema import CATEGORY, RegularizerSocket, RewardSocket, output, schema

_PLACES = 4


class DNOCombineRewards(io.ComfyNode):
    """Adds up to four rewards, each with its weight."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, "Combine Rewards", RewardSocket, "reward")

    @classmethod
    def execute(cls, **values: object) -> io.NodeOutput:
        return io.NodeOutput(_combine(values, "reward"))


class DNOCombineRegularizers(io.ComfyNode):
    """Adds up to four regularizers, each with its weight."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, "Combine Regularizers", RegularizerSocket, "regularizer")

    @classmethod
    def execute(cls, **values: object) -> io.NodeOutput:
        return io.NodeOutput(_combine(values, "regularizer"))


class DNOMinimumReward(io.ComfyNode):
    """Lifts the worst of several rewards first."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        softness = io.Float.Input(
            "softness",
            default=0.1,
            min=0.0,
            max=100.0,
            step=0.01,
            tooltip="Smaller differences of weighted scores are shared out; 0 lifts the lowest.",
        )
        return _schema(cls, "Minimum Reward", RewardSocket, "reward", softness)

    @classmethod
    def execute(cls, softness: float, **values: object) -> io.NodeOutput:
        terms = _combine(values, "reward")
        name = f"lowest of {', '.join(terms)}"
        return io.NodeOutput({name: Weighted(1.0, Minimum(terms, softness))})


def _schema(
    cls: type, title: str, socket: type[io.ComfyTypeIO], kind: str, *more: io.Input
) -> io.Schema:
    lowest = -100.0 if kind == "reward" else 0.0
    inputs: list[io.Input] = []
    for place in range(1, _PLACES + 1):
        inputs.append(
            socket.Input(
                f"{kind}_{place}",
                optional=place > 1,
                tooltip=f"A {kind}, or several that were combined before.",
            )
        )
    for place in range(1, _PLACES + 1):
        inputs.append(
            io.Float.Input(
                f"weight_{place}",
                default=1.0,
                min=lowest,
                max=100.0,
                step=0.01,
                tooltip=f"Multiplies every term of {kind}_{place}, on top of its own weight.",
            )
        )
    return schema(
        node_id=cls.__name__,
        display_name=title,
        category=f"{CATEGORY}/{kind}s",
        description=cls.__doc__,
        search_aliases=["DNO", "weighted sum", "mix", "add"],
        inputs=[*inputs, *more],
        outputs=[output(socket, kind)],
    )


def _combine(values: Mapping[str, object], kind: str) -> dict[str, Weighted]:
    groups = []
    for place in range(1, _PLACES + 1):
        terms = values.get(f"{kind}_{place}")
        if isinstance(terms, Mapping):
            groups.append((float(values.get(f"weight_{place}", 1.0)), terms))  # type: ignore[arg-type]
    return combine(*groups)


NODES = [DNOCombineRewards, DNOCombineRegularizers, DNOMinimumReward]

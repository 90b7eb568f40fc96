"""Nodes of several rewards or regularizers; chain them for more than four."""

from __future__ import annotations

from comfy_api.latest import io

from ..rewards import Minimum
from .bridge import REGULARIZERS, REWARDS, minimum_node
from .schema import RegularizerSocket, RewardSocket, output, schema
from .widgets import several, together


class DNOCombineRewards(io.ComfyNode):
    """Adds up to four rewards, each with its weight."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, "Combine Rewards", RewardSocket, "reward", f"{REWARDS}/modifiers")

    @classmethod
    def execute(cls, **values: object) -> io.NodeOutput:
        return io.NodeOutput(together("reward", values))


class DNOCombineRegularizers(io.ComfyNode):
    """Adds up to four regularizers, each with its weight."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return _schema(cls, "Combine Regularizers", RegularizerSocket, "regularizer", REGULARIZERS)

    @classmethod
    def execute(cls, **values: object) -> io.NodeOutput:
        return io.NodeOutput(together("regularizer", values))


def _schema(
    cls: type[io.ComfyNode], title: str, socket: type[io.ComfyTypeIO], kind: str, menu: str
) -> io.Schema:
    return schema(
        node_id=cls.__name__,
        display_name=title,
        category=menu,
        description=cls.__doc__,
        search_aliases=["weighted sum", "mix", "add", "several", "both"],
        inputs=several(kind, socket),
        outputs=[output(socket, kind)],
    )


NODES = [DNOCombineRewards, DNOCombineRegularizers, minimum_node(Minimum)]

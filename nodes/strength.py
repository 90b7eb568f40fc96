"""How strongly and for how long, in two plain words: what the blueprints ask."""

from __future__ import annotations

from dataclasses import replace

from comfy_api.latest import io

from ..dno.method import Ascent, Method, Then
from ..dno.optimizers import Rotation
from ..dno.presets import PRESETS
from ..dno.steer import Steer
from .options import Options
from .plan import Plan
from .presets import OPTIONS, OUTPUT
from .schema import CATEGORY, schema

STRENGTHS = {"gentle": 0.5, "brisk": 1.0, "strong": 1.75}  # of the preset's angles
SPEEDS = ("one pass", "fast", "thorough")


class DNOStrength(io.ComfyNode):
    """How strongly the noise is turned and how long it may take, instead of an effort."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOStrength",
            display_name="DNO Strength",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["gentle", "strong", "speed", "intensity", "amount"],
            inputs=[
                io.Combo.Input(
                    "strength",
                    options=list(STRENGTHS),
                    default="brisk",
                    tooltip=(
                        "How far the noise is turned: gentle stays near the first picture, strong "
                        "goes far from it. brisk is what effort does."
                    ),
                ),
                io.Combo.Input(
                    "speed",
                    options=list(SPEEDS),
                    default="fast",
                    tooltip="one pass: 1 sampling. fast: 6. thorough: about 30.",
                ),
                OPTIONS,
            ],
            outputs=[OUTPUT],
        )

    @classmethod
    def execute(cls, strength: str, speed: str, options: Options | None = None) -> io.NodeOutput:
        if strength not in STRENGTHS or speed not in SPEEDS:
            raise ValueError(
                f"strength is {strength!r} and speed {speed!r}; choose one of "
                f"{', '.join(STRENGTHS)}, and one of {', '.join(SPEEDS)}."
            )
        plan = Plan(f"{strength}, {speed}", turned(PRESETS[speed].method, STRENGTHS[strength]))
        return io.NodeOutput(replace(options or Options(), plan=plan))


def turned(method: Method, factor: float) -> Method:
    """The same method with every angle multiplied."""
    if isinstance(method, Then):
        return Then(turned(method.first, factor), turned(method.second, factor))
    if isinstance(method, Steer):
        passes = tuple(replace(each, angle=each.angle * factor) for each in method.passes)
        return replace(method, passes=passes)
    assert isinstance(method, Ascent) and isinstance(method.optimizer, Rotation)
    turns = method.optimizer
    turns = replace(turns, angle=turns.angle * factor, largest=turns.largest * factor)
    return replace(method, optimizer=turns)


NODES = [DNOStrength]

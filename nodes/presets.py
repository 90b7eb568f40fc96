"""Presets and steering by hand: what the DNO Sampler does instead of its effort."""

from __future__ import annotations

import re
from dataclasses import replace

from comfy_api.latest import io

from ..dno.presets import PRESETS
from ..dno.projections import TypicalSet, Whitened
from ..dno.steer import STARTS, Pass, Steer
from ..regularizers import Probability
from .host.picture.directions import CHOICES
from .options import Options
from .plan import Plan, of_preset
from .schema import CATEGORY, OptionsSocket, schema

USUAL = "14 seed rough, 14 fresh rough, 14 fresh rough, 10, 8"
OPTIONS = OptionsSocket.Input(
    "options", optional=True, tooltip="DNO Options for the rest: stopping rules, start, memory."
)
OUTPUT = OptionsSocket.Output(
    display_name="options", tooltip="For the options input of a DNO Sampler."
)


class DNOPreset(io.ComfyNode):
    """A published way to optimise noise, not an effort; its source output says whose numbers."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOPreset",
            display_name="DNO Preset",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", *PRESETS],
            inputs=[
                io.Combo.Input(
                    "preset",
                    options=list(PRESETS),
                    default="fast",
                    tooltip="Whose method and numbers; the source output says where they are from.",
                ),
                OPTIONS,
            ],
            outputs=[
                OUTPUT,
                io.String.Output(
                    display_name="source", tooltip="The paper, its numbers, and its sampling."
                ),
            ],
        )

    @classmethod
    def execute(cls, preset: str, options: Options | None = None) -> io.NodeOutput:
        chosen = PRESETS[preset]
        plan = of_preset(chosen, f"preset {preset}, which overrides effort")
        source = chosen.source
        if chosen.sampling:
            source += f" Sampling: {chosen.sampling}."
        return io.NodeOutput(replace(options or Options(), plan=plan), source)


class DNOSteering(io.ComfyNode):
    """Steers by hand: how often the noise is turned while it is sampled, by how much, and how."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOSteering",
            display_name="DNO Steering",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "guidance", "training-free"],
            inputs=[*_turns(), *_decoding(), OPTIONS],
            outputs=[OUTPUT],
        )

    @classmethod
    def execute(
        cls,
        passes: str,
        whiten: bool,
        tolerance: float,
        polish: bool,
        directions: str,
        decoder=None,
        options: Options | None = None,
    ) -> io.NodeOutput:
        method = Steer(
            parsed(passes),
            whiten=Whitened(1.0 if whiten else 0.0),
            project=TypicalSet(tolerance),
            polish=Probability() if polish else None,
        )
        words = "DNO Steering, which overrides effort"
        plan = Plan(words, method, directions=directions, directions_vae=decoder)
        return io.NodeOutput(replace(options or Options(), plan=plan))


def _turns() -> list[io.Input]:
    """How often and how far the noise is turned."""
    return [
        io.String.Input(
            "passes",
            default=USUAL,
            tooltip=(
                "One sampling each: degrees of the turn, and from where: seed (the seed's "
                "own draws), fresh (new ones) or best (the best so far, if nothing is "
                "said); rough at the end: its directions may come from a map, see "
                "directions. More than one pass starts with a plain sampling."
            ),
        ),
        io.Boolean.Input(
            "whiten",
            default=False,
            tooltip="Give every frequency of the direction the same strength.",
        ),
        io.Float.Input(
            "tolerance",
            default=1.5,
            min=0.0,
            max=10.0,
            step=0.1,
            tooltip="How far the turned noise's spectrum may stray from white, in sigma.",
        ),
        io.Boolean.Input(
            "polish",
            default=False,
            tooltip=(
                "One more sampling, of the best noise brought back to a P(z) near 1; kept "
                "if it scores no worse."
            ),
        ),
    ]


def _decoding() -> list[io.Input]:
    """What predictions are decoded with."""
    return [
        io.Combo.Input(
            "directions",
            options=list(CHOICES),
            default="automatic",
            tooltip=(
                "What predictions are decoded with to find directions. automatic: the "
                "VAE; in rough passes, and in all where the VAE takes too much memory, "
                "a linear map if it fits. The reward that counts is always the VAE's."
            ),
        ),
        io.Vae.Input(
            "decoder",
            optional=True,
            tooltip="A cheaper decoder for directions, such as TAESD by Load VAE.",
        ),
    ]


def parsed(text: str) -> tuple[Pass, ...]:
    """`12 seed, 12 fresh rough, 8` -> passes; a start that is not said is the best."""
    passes = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*((?!rough)[a-z]*)\s*(rough)?\s*", part)
        start = (match and match[2]) or "best"
        if not match or not 0 < float(match[1]) <= 90 or start not in STARTS:
            raise ValueError(
                f"passes: {part.strip()!r} is not a pass; write degrees above 0 and up to 90, and "
                f"{', '.join(STARTS[:-1])} or {STARTS[-1]}, for example '{USUAL}'."
            )
        passes.append(Pass(float(match[1]), start, bool(match[3])))
    if len(passes) == 1 and passes[0].start != "seed":
        passes = [replace(passes[0], start="seed")]  # there is no other noise yet
    return tuple(passes)


NODES = [DNOPreset, DNOSteering]

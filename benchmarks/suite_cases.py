"""The benchmark suite, fixed: rewards in three classes, ways to climb them, prompts and seeds.

*Easy*: some of a few seeds have it. *Far*: no seed of 256 is expected to reach what 50 exact
iterations reach. *Treacherous*: the reward is easily raised while the picture gets worse. Which of
them are what they are called is for the suite to show; the classes are written down before it runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

SEEDS = 256
"""Of the baseline: the best of so many plain samplings."""
ITERATIONS, LEARNING_RATE = 50, 0.03

CHOOSING = (
    ("a penguin", 11), ("an apple", 23), ("a robot", 37), ("a cat", 41), ("a star", 53),
    ("a house", 67), ("an owl", 71), ("a car", 89),
)  # fmt: skip
"""Prompts and first seeds on which settings may be chosen."""
KEPT = (
    ("a frog", 1009), ("a strawberry", 1013), ("a rocket", 1019), ("a dog", 1021),
    ("a heart", 1031), ("a castle", 1033), ("a turtle", 1039), ("a mushroom", 1049),
)  # fmt: skip
"""Never used for choosing: what is reported comes from these."""
SETS = {"choosing": CHOOSING, "kept": KEPT}


@dataclass(frozen=True)
class Kit:
    """What rewards are built from: the pack's modules and the demo's CLIP."""

    rewards: Any
    weighted: Callable[[float, Any], Any]
    clip: Any


@dataclass(frozen=True)
class Case:
    """A reward of the suite; ``build`` is given the kit and the prompt's thing."""

    name: str
    kind: str
    build: Callable[[Kit, str], Any]
    gradient: dict | None = None
    """Fields of ``Estimated``, for rewards without a gradient."""


@dataclass(frozen=True)
class Method:
    """A way to climb: regularizers with weights, and the sampler's settings."""

    name: str
    regularizers: tuple[tuple[str, float, dict], ...] = ()
    learning_rate: float = LEARNING_RATE
    iterations: int = ITERATIONS
    options: dict = field(default_factory=dict)


METHODS = (
    Method("none"),
    Method("paper", (("Probability", 1.0, {"form": "paper"}),), learning_rate=0.01),
    Method("default", (("Spectrum", 1.0, {}), ("Probability", 1.0, {}))),
    Method("Spectrum", (("Spectrum", 1.0, {}),)),
    Method("Probability", (("Probability", 1.0, {}),)),
    Method("Norm", (("Norm", 0.01, {}),)),
)


def _said(sentence: str) -> Callable[[Kit, str], Any]:
    """Similarity to a sentence about the prompt's thing, by the demo's CLIP."""
    return lambda kit, thing: kit.rewards.CLIPTextSimilarity(kit.clip, sentence.format(thing))


def _plain(name: str, **fields) -> Callable[[Kit, str], Any]:
    return lambda kit, thing: getattr(kit.rewards, name)(**fields)


def half(side: str):
    """A mask (1, 64, 64), white on one side."""
    import torch

    line = (torch.arange(64) < 32).float()
    area = {"left": line[None], "right": 1 - line[None], "top": line[:, None]}
    area["bottom"] = 1 - area["top"]
    return area[side].expand(64, 64)[None].contiguous()


def sketch():
    """A reference (1, 3, 64, 64): orange light from the top left over a dark blue ground."""
    import torch

    line = torch.linspace(0, 1, 64)
    share = ((line[None] + line[:, None]) / 2)[None]
    light, dark = (torch.tensor(c).view(3, 1, 1) for c in ((0.98, 0.6, 0.2), (0.05, 0.08, 0.3)))
    return torch.lerp(light, dark, share)[None]


def _both(first: Callable, second: Callable, *weights: float) -> Callable[[Kit, str], Any]:
    """The lower of two weighted rewards."""

    def build(kit: Kit, thing: str):
        parts = zip(("first", "second"), (first, second), weights, strict=True)
        terms = {name: kit.weighted(weight, made(kit, thing)) for name, made, weight in parts}
        return kit.rewards.Minimum(terms)

    return build


def _inside(side: str, name: str) -> Callable[[Kit, str], Any]:
    return lambda kit, thing: kit.rewards.Mask(half(side))(getattr(kit.rewards, name)())


CASES = (
    Case("darker", "easy", _plain("Darkness")),
    Case("brighter", "easy", _plain("Brightness")),
    Case("warmer", "easy", _plain("Warmth")),
    Case("blue ground in words", "easy", _said("a {} on a blue background")),
    Case("layout of a sketch", "far", lambda kit, _: kit.rewards.Layout(sketch(), detail=4)),
    Case("dark left, bright right", "far",
         _both(_inside("left", "Darkness"), _inside("right", "Brightness"), 1.0, 1.0)),
    Case("composed to the right", "far", _plain("Composition", layout="right")),
    Case("dark and colourful", "far", _both(_plain("Darkness"), _plain("Saturation"), 1.0, 1.0)),
    Case("place in words", "far", _said("a small {} on the left")),
    Case("light in words", "far", _said("a {} at dusk")),
    Case("large JPEG", "far", _plain("JPEGIncompressibility"), {"method": "hybrid-2"}),
    Case("beautiful by the demo's CLIP", "treacherous", _said("a beautiful painting of a nice {}")),
    Case("sharpness", "treacherous", _plain("Sharpness")),
    Case("saturation", "treacherous", _plain("Saturation")),
)  # fmt: skip

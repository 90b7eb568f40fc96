"""From the sampler's effort, and from what is connected, to what is done; in words for the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import regularizers
from ..dno.declared import term_name
from ..dno.estimate import Estimated
from ..dno.method import Method
from ..dno.objective import Weighted
from ..dno.optimizers import Optimizer
from ..dno.presets import PRESETS, Preset
from .host.sampling.climb import Settings

if TYPE_CHECKING:
    from .options import Options

EFFORTS = {
    "one pass": "one pass",
    "fast": "fast",
    "thorough": "thorough",
    "paper": "DNO paper",
}
BY_EFFORT = -1  # iterations: as the effort says
CLIMB = 30  # iterations of a connected optimizer


@dataclass(frozen=True)
class Plan:
    """What a preset or a steering node sets in place of the effort.

    carried, scope: as its method needs them. directions: what steering decodes with.
    """

    words: str
    method: Method
    scope: str = "all"
    carried: str = "all"
    penalties: Mapping[str, Weighted] | None = None
    directions: str = "automatic"
    directions_vae: object = None


def of_preset(preset: Preset, words: str) -> Plan:
    """A preset's plan, its penalties built."""
    penalties = {}
    for each in preset.penalties:
        cls = getattr(regularizers, each.name)
        penalties[term_name(cls)] = Weighted(each.weight, cls(**each.fields))
    return Plan(words, preset.method, preset.scope, preset.carried, penalties or None)


def planned(
    options: Options,
    effort: str,
    iterations: int,
    learning_rate: float,
    regularizer: Mapping[str, Weighted] | None,
    optimizer: Optimizer | None,
    gradient: Estimated | None,
) -> tuple[Settings, Mapping[str, Weighted] | None]:
    """What is done, and the regularizers that count.

    A connected preset or steering comes first, then `iterations` of 0 or more (a climb, as ever),
    then a connected optimizer, then the effort. A connected regularizer replaces a preset's.
    """
    settings = options.settings(max(iterations, 0), learning_rate, optimizer, gradient)
    plan = options.plan
    if plan is None:
        if iterations != BY_EFFORT:
            return settings, regularizer
        if optimizer is not None:
            words = f"{CLIMB} iterations of {type(optimizer).__name__}, which overrides effort"
            return replace(settings, iterations=CLIMB, note=words), regularizer
        if effort not in EFFORTS:
            raise ValueError(f"effort is {effort!r}; choose one of {', '.join(EFFORTS)}.")
        plan = of_preset(PRESETS[EFFORTS[effort]], f"effort: {effort}")
    made = replace(
        settings,
        method=plan.method,
        scope=plan.scope if settings.scope == "all" else settings.scope,
        carried=plan.carried if settings.carried == "all" else settings.carried,
        directions=plan.directions,
        directions_vae=plan.directions_vae,
        note=plan.words,
    )
    return made, regularizer or plan.penalties

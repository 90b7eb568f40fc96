"""From the sampler's effort, and from what is connected, to what is done; in words for the user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .. import regularizers
from ..dno.declared import term_name
from ..dno.estimate import Estimated
from ..dno.method import Ascent, Method, Then
from ..dno.objective import Weighted
from ..dno.optimizers import Optimizer, Rotation
from ..dno.presets import PRESETS, Preset
from ..dno.projections import TypicalSet
from ..dno.steer import Steer
from .host.sampling.settings import Settings

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
DEFAULT_WEIGHT = 1.0  # of Spectrum: benchmarks/reward_hacking.md
NOT_NEEDED = "regularizer: none is needed, its turns keep the noise Gaussian"


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
    then a connected optimizer, then the effort. A connected regularizer, No Regularizer too,
    replaces what a preset publishes, and what a climb is protected by without one.
    """
    settings = options.settings(max(iterations, 0), learning_rate, optimizer, gradient)
    plan = options.plan
    if plan is None:
        if iterations != BY_EFFORT:
            return _protected(settings, regularizer)
        if optimizer is not None:
            words = f"{CLIMB} iterations of {type(optimizer).__name__}, which overrides effort"
            return _protected(replace(settings, iterations=CLIMB, note=words), regularizer)
        if effort not in EFFORTS:
            raise ValueError(f"effort is {effort!r}; choose one of {', '.join(EFFORTS)}.")
        plan = of_preset(PRESETS[EFFORTS[effort]], f"effort: {effort}")
    if regularizer is None:
        regularizer, words = plan.penalties, _published(plan)
    else:
        words = _connected(regularizer)
    changed = replace(
        settings,
        method=plan.method,
        scope=plan.scope if settings.scope == "all" else settings.scope,
        carried=plan.carried if settings.carried == "all" else settings.carried,
        directions=plan.directions,
        directions_vae=plan.directions_vae,
        note=f"{plan.words}\n{words}",
    )
    return changed, regularizer


def _protected(
    settings: Settings, regularizer: Mapping[str, Weighted] | None
) -> tuple[Settings, Mapping[str, Weighted] | None]:
    """A climb by gradients, with the measured default where nothing is connected."""
    if settings.iterations == 0:  # nothing moves: there is nothing to keep
        return settings, regularizer
    if regularizer is not None:
        words = _connected(regularizer)
    elif isinstance(settings.optimizer, Rotation):
        words = NOT_NEEDED
    else:
        each = regularizers.Spectrum()
        regularizer = {term_name(type(each)): Weighted(DEFAULT_WEIGHT, each)}
        words = f"regularizer: {_names(regularizer)}, because none is connected"
    return replace(settings, note=f"{settings.note}\n{words}".strip()), regularizer


def _connected(regularizer: Mapping[str, Weighted]) -> str:
    return f"regularizer: {_names(regularizer)}"


def _published(plan: Plan) -> str:
    """What keeps the noise of a preset or of steering Gaussian."""
    if plan.penalties:
        return f"regularizer: {_names(plan.penalties)}, as published"
    return NOT_NEEDED if _turns(plan.method) else "regularizer: none, as published"


def _turns(method: Method) -> bool:
    """Whether it moves the noise by turns alone, each brought back to the typical set."""
    if isinstance(method, Then):
        return _turns(method.first) and _turns(method.second)
    if isinstance(method, Steer):
        return isinstance(method.project, TypicalSet)
    return isinstance(method, Ascent) and isinstance(method.optimizer, Rotation)


def _names(regularizer: Mapping[str, Weighted]) -> str:
    if not isinstance(regularizer, Mapping):
        return ""  # told where the objective is made of it
    return ", ".join(f"{name} {term.weight:g}" for name, term in regularizer.items()) or "none"

"""When to stop early: each rule looks at the history and gives a reason or None."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from .history import History


class StoppingRule(Protocol):
    def __call__(self, history: History) -> str | None:
        """The reason to stop now, in words for the user, or None to go on."""


@dataclass(frozen=True)
class Target:
    """Stop when every image's reward has reached `reward`."""

    reward: float

    def __call__(self, history: History) -> str | None:
        reached = history.best.reward >= self.reward
        return f"reward target {self.reward:g} reached" if bool(reached.all()) else None


@dataclass(frozen=True)
class Patience:
    """Stop when no image's objective has improved for `iterations` iterations."""

    iterations: int

    def __call__(self, history: History) -> str | None:
        waited = history.records[-1].step - int(history.best.step.max())
        return f"no better for {waited} iterations" if waited >= self.iterations else None


@dataclass(frozen=True)
class TimeBudget:
    """Stop when another iteration would pass `seconds`."""

    seconds: float

    def __call__(self, history: History) -> str | None:
        following = history.records[-1].seconds + history.seconds_each
        return f"time budget of {self.seconds:g} s used" if following > self.seconds else None


def first_reason(rules: tuple[StoppingRule, ...], history: History) -> str | None:
    """The first rule's reason to stop, or None."""
    return next((reason for rule in rules if (reason := rule(history))), None)

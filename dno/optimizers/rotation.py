from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..fields import Range, Switch
from ..projections import TypicalSet, Whitened, rotated
from .base import Gradients, Optimizer, Step


@dataclass(frozen=True)
class Rotation(Optimizer):
    """Turns the noise towards its gradient and back onto the typical set: z <- K(cos z + sin g).

    g is the gradient, whitened and of rms 1 over all the noise of an image; K clamps the power
    spectrum and sets mean and variance, so that the noise stays Gaussian without a regularizer.
    Each image goes on from its best: a turn that helped makes the next angle larger by `grow`, one
    that did not is halved and tried again, never kept, at the cost of a sampling without a
    backward. The learning rate is not used.
    """

    angle: Annotated[float, Range(0.1, 90.0, 0.5, "Degrees of the first turn.")] = 6.0
    grow: Annotated[
        float, Range(1.0, 2.0, 0.1, "Growth of the angle after a turn that helped.")
    ] = 1.2
    largest: Annotated[float, Range(0.1, 90.0, 0.5, "Degrees that no turn exceeds.")] = 12.0
    whiten: Annotated[
        bool, Switch("Give every frequency of the gradient the same strength first.")
    ] = True
    tolerance: Annotated[
        float, Range(0.0, 10.0, 0.1, "Spectral deviations up to this many sigma are left.")
    ] = 1.5

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        del learning_rate
        return _Turns(self, leaves)


class _Turns:
    """What one climb by rotation remembers: each image's best, the gradient there and its angle."""

    def __init__(self, settings: Rotation, leaves: Sequence[Tensor]):
        self._settings, self._leaves = settings, list(leaves)
        self._whiten = Whitened(1.0 if settings.whiten else 0.0)
        self._keep = TypicalSet(settings.tolerance)
        self._best: Tensor | None = None
        self._noise = [leaf.detach().clone() for leaf in leaves]
        self._directions = [torch.zeros_like(leaf) for leaf in self._noise]
        self._angle = torch.empty(0)

    @torch.no_grad()
    def __call__(self, gradients: Gradients, objective: Tensor) -> None:
        settings, objective = self._settings, objective.detach().float().cpu()
        if self._best is None:
            better = torch.ones(len(objective), dtype=torch.bool)
            self._best = objective.clone()
            self._angle = torch.full((len(objective),), math.radians(settings.angle))
        else:
            better = objective > self._best
            larger = (self._angle * settings.grow).clamp(max=math.radians(settings.largest))
            self._angle = torch.where(better, larger, self._angle / 2)
            self._best = torch.where(better, objective, self._best)
        if better.any():
            self._take(self._whiten(gradients()), better)
        for leaf, noise, direction in zip(self._leaves, self._noise, self._directions, strict=True):
            leaf.copy_(rotated(noise, direction, self._angle, self._keep))

    def _take(self, directions: Sequence[Tensor], better: Tensor) -> None:
        """The present noise and its gradient become the best of the images that are better."""
        for leaf, noise, kept, direction in zip(
            self._leaves, self._noise, self._directions, directions, strict=True
        ):
            rows = better.to(leaf.device)
            noise[rows], kept[rows] = leaf.detach()[rows], direction[rows].to(kept)

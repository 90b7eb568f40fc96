"""Where the gradient of the reward comes from: exact, or estimated where the reward has none.

The sample `x0 = render(noise)` is where two halves meet: the graphs of decoder and reward are gone
before the deep backward through the sampling starts. The lower half is linear in what the upper
half pulls, so it may be rescaled freely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .noise import Noise
from .objective import Objective


@dataclass(frozen=True)
class Point:
    """Where a gradient is wanted: iteration, sample, its noise, and the way from noise to image."""

    step: int
    latent: Tensor
    noise: Noise
    render: Callable[[Noise], Tensor]
    decode: Callable[[Tensor], Tensor]

    @torch.no_grad()
    def samples(self, noise: Noise) -> tuple[Tensor, Tensor]:
        """Pictures and latents of other noise, a multiple of this point's batch."""
        latent = self.render(noise)
        return self.decode(latent), latent


@dataclass(frozen=True)
class Scored:
    """The reward (B,) of a sample and its image (B,3,H,W), with two ways to its gradient.

    pull:   d(reward)/d(latent), to be pulled through the sampling; zeros if there is none.
    direct: an estimate of d(reward)/d(noise) for every leaf, or None.
    Each is called once at most, and only if the climb goes on.
    """

    reward: Tensor
    terms: dict[str, Tensor]
    image: Tensor
    pull: Callable[[], Tensor]
    direct: Callable[[], list[Tensor]] | None = None


class Gradient(Protocol):
    """`through_sampling`: whether the sampling has to be recorded for backward."""

    through_sampling: bool

    def score(self, point: Point, objective: Objective, climb: bool) -> Scored:
        """Decode and score; with `climb` false no gradient will be asked for."""


@dataclass(frozen=True)
class Exact:
    """Automatic differentiation through decoder, reward and sampling."""

    through_sampling = True

    def score(self, point: Point, objective: Objective, climb: bool) -> Scored:
        with torch.set_grad_enabled(climb):
            sample = point.latent.detach().requires_grad_(climb)
            image = seen_by(objective, point, sample)
            reward, terms = objective.reward(image, sample)

        def pull() -> Tensor:
            return _derivative(reward, sample)

        return Scored(reward.detach(), detached(terms), image.detach(), pull)


def seen_by(objective: Objective, point: Point, sample: Tensor) -> Tensor:
    """The decoded image, with a gradient only if a reward looks at it."""
    with torch.set_grad_enabled(torch.is_grad_enabled() and objective.sees_image):
        return point.decode(sample)


def detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: score.detach() for name, score in terms.items()}


def _derivative(value: Tensor, variable: Tensor) -> Tensor:
    """d(sum of value)/d(variable), zeros where they are not connected."""
    if not value.requires_grad:
        return torch.zeros_like(variable)
    (gradient,) = torch.autograd.grad(value.sum(), variable, allow_unused=True)
    return torch.zeros_like(variable) if gradient is None else gradient

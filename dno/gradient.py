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

from .checks import PictureError, check_finite
from .noise import Noise
from .objective import Objective


@dataclass(frozen=True)
class Problem:
    """The way from noise to reward.

    render: noise -> sample (B,C,...), differentiable when grad mode is on, plain when it is off.
    decode: sample -> image (B,3,H,W) in [0,1], differentiable.
    at_once: how many perturbed pictures fit in one batch beside what is kept at present.
    """

    render: Callable[[Noise], Tensor]
    decode: Callable[[Tensor], Tensor]
    objective: Objective
    at_once: Callable[[], int] = lambda: 1

    def sample(self, noise: Noise, step: int) -> Tensor:
        """The sampling of `noise`, checked; `step` is the iteration that an error names."""
        latent = self.render(noise)
        check_finite(latent, step, "latent (the model's output)")
        return latent

    def image(self, sample: Tensor, step: int) -> Tensor:
        """The decoded sample, with a gradient only if a reward looks at it; checked."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.objective.sees_image):
            image = self.decode(sample)
        check_finite(image, step, "decoded picture (the VAE's output)", PictureError)
        return image


@dataclass(frozen=True)
class Evaluated:
    """The sample (B,C,...) of a noise, its image (B,3,H,W) and reward (B,), all detached.

    gradients: d(sum of reward)/d(leaf) of every leaf of the noise; called once at most, and only
        if the climb goes on.
    """

    latent: Tensor
    image: Tensor
    reward: Tensor
    terms: dict[str, Tensor]
    gradients: Callable[[], list[Tensor]]


class Gradient(Protocol):
    def evaluate(self, problem: Problem, noise: Noise, step: int, climb: bool) -> Evaluated:
        """Sample, decode and score; with `climb` false no gradient will be asked for."""


@dataclass(frozen=True)
class Exact:
    """Automatic differentiation through decoder, reward and sampling."""

    def evaluate(self, problem: Problem, noise: Noise, step: int, climb: bool) -> Evaluated:
        with torch.set_grad_enabled(climb):
            latent = problem.sample(noise, step)
            sample = latent.detach().requires_grad_(climb)
            image = problem.image(sample, step)
            reward, terms = problem.objective.reward(image, sample)

        def gradients() -> list[Tensor]:
            return pull_back(latent, _derivative(reward, sample), noise.leaves(), step)

        return Evaluated(
            latent.detach(), image.detach(), reward.detach(), detached(terms), gradients
        )


def pull_back(latent: Tensor, upper: Tensor, leaves: list[Tensor], step: int) -> list[Tensor]:
    """The lower half: `upper` = d(reward)/d(latent) pulled back to every leaf."""
    check_finite(upper, step, "gradient of the reward")
    # Unit size per image keeps half-precision models from under- or overflowing; undone in fp32.
    scale = upper.flatten(1).float().abs().amax(dim=1)
    if not scale.any():
        return [torch.zeros_like(leaf) for leaf in leaves]
    unit = upper.float() / by_image(scale.where(scale > 0, torch.ones_like(scale)), upper)
    lower = torch.autograd.grad(latent, leaves, unit.to(latent.dtype), allow_unused=True)
    return [
        torch.zeros_like(leaf) if g is None else g.to(leaf.dtype) * by_image(scale, leaf)
        for leaf, g in zip(leaves, lower, strict=True)
    ]


def by_image(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B,1,...) that broadcasts against `like`."""
    return values.to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def detached(terms: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value.detach() for name, value in terms.items()}


def _derivative(value: Tensor, variable: Tensor) -> Tensor:
    """d(sum of value)/d(variable), zeros where they are not connected."""
    if not value.requires_grad:
        return torch.zeros_like(variable)
    (gradient,) = torch.autograd.grad(value.sum(), variable, allow_unused=True)
    return torch.zeros_like(variable) if gradient is None else gradient

"""Where the gradient of the reward with respect to the sample comes from: the upper half.

The sample `x0 = render(noise)` is where two halves meet (shared design: the graph of decoder and
reward is gone before the deep backward through the sampling starts). The lower half is linear in
what this module returns, so it may be rescaled freely.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from .objective import Objective


@dataclass(frozen=True)
class Scored:
    """The reward (B,) of a sample, its image (B,3,H,W); `pull()` gives d(reward)/d(latent) once."""

    reward: Tensor
    terms: dict[str, Tensor]
    image: Tensor
    pull: Callable[[], Tensor]


class Gradient(Protocol):
    def score(
        self, latent: Tensor, decode: Callable[[Tensor], Tensor], objective: Objective, climb: bool
    ) -> Scored:
        """Decode and score a detached latent; with `climb` false, `pull` is never called."""


@dataclass(frozen=True)
class Exact:
    """Automatic differentiation through decoder and reward."""

    def score(
        self, latent: Tensor, decode: Callable[[Tensor], Tensor], objective: Objective, climb: bool
    ) -> Scored:
        with torch.set_grad_enabled(climb):
            sample = latent.detach().requires_grad_(climb)
            image = decode(sample)
            reward, terms = objective.reward(image)

        def pull() -> Tensor:
            if not reward.requires_grad:
                return torch.zeros_like(sample)
            (gradient,) = torch.autograd.grad(reward.sum(), sample)
            return gradient

        detached = {name: score.detach() for name, score in terms.items()}
        return Scored(reward.detach(), detached, image.detach(), pull)

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..fields import Range
from .base import Gradients, Optimizer, Step


@dataclass(frozen=True)
class Langevin(Optimizer):
    """Langevin ascent, which leaves N(0, I) invariant by itself (ORIGEN, arXiv 2503.22194).

    z <- sqrt(1 - gamma) z + learning_rate gradient + sqrt(gamma) xi, with fresh noise xi.
    """

    gamma: Annotated[float, Range(0.0, 1.0, 0.001, "Share of the noise that is redrawn.")] = 0.002
    seed: Annotated[int, Range(0, 2**32 - 1, 1, "Seed of the redrawn noise.")] = 0

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        generator = torch.Generator().manual_seed(self.seed)

        @torch.no_grad()
        def step(gradients: Gradients, objective: Tensor) -> None:
            del objective
            for leaf, gradient in zip(leaves, gradients(), strict=True):
                fresh = torch.randn(leaf.shape, generator=generator).to(leaf)
                leaf.mul_(math.sqrt(1 - self.gamma)).add_(gradient, alpha=learning_rate)
                leaf.add_(fresh, alpha=math.sqrt(self.gamma))

        return step

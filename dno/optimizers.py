"""Named optimisers. Each is a frozen dataclass; `start` binds it to the noise and a learning rate.

None has weight decay, which would shrink the noise out of N(0, I), and none mixes images: what
image i does is a function of image i's gradients alone.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from .declared import Declared
from .fields import Range, Switch

Step = Callable[[Sequence[Tensor]], None]


class Optimizer(Declared, ABC):
    """Gradient ascent on the noise."""

    @abstractmethod
    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        """Return `step(gradients)`, which moves `leaves` in place uphill."""


def _torch_step(leaves: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> Step:
    def step(gradients: Sequence[Tensor]) -> None:
        for leaf, gradient in zip(leaves, gradients, strict=True):
            leaf.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


@dataclass(frozen=True)
class Adam(Optimizer):
    """Adam (arXiv 1412.6980), the paper's choice: each number moves by about the learning rate."""

    beta1: Annotated[float, Range(0.0, 0.999, 0.001, "Memory of the gradient's mean.")] = 0.9
    beta2: Annotated[float, Range(0.0, 0.9999, 0.0001, "Memory of the gradient's square.")] = 0.999

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        adam = torch.optim.Adam(
            leaves, lr=learning_rate, betas=(self.beta1, self.beta2), maximize=True
        )
        return _torch_step(leaves, adam)


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient ascent with momentum; ReNO (arXiv 2406.04312) uses Nesterov, rate 5, clip 0.1."""

    momentum: Annotated[float, Range(0.0, 0.999, 0.01, "Share of the last step that is kept.")] = (
        0.9
    )
    nesterov: Annotated[bool, Switch("Look ahead along the momentum.")] = True

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        sgd = torch.optim.SGD(
            leaves,
            lr=learning_rate,
            momentum=self.momentum,
            nesterov=self.nesterov and self.momentum > 0,
            maximize=True,
        )
        return _torch_step(leaves, sgd)


@dataclass(frozen=True)
class Langevin(Optimizer):
    """Langevin ascent, which leaves N(0, I) invariant by itself (ORIGEN).

    z <- sqrt(1 - gamma) z + learning_rate gradient + sqrt(gamma) xi, with fresh noise xi.
    """

    gamma: Annotated[float, Range(0.0, 1.0, 0.001, "Share of the noise that is redrawn.")] = 0.002
    seed: Annotated[int, Range(0, 2**32 - 1, 1, "Seed of the redrawn noise.")] = 0

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        generator = torch.Generator().manual_seed(self.seed)

        @torch.no_grad()
        def step(gradients: Sequence[Tensor]) -> None:
            for leaf, gradient in zip(leaves, gradients, strict=True):
                fresh = torch.randn(leaf.shape, generator=generator).to(leaf)
                leaf.mul_(math.sqrt(1 - self.gamma)).add_(gradient, alpha=learning_rate)
                leaf.add_(fresh, alpha=math.sqrt(self.gamma))

        return step


OPTIMIZERS: tuple[type[Optimizer], ...] = (Adam, SGD, Langevin)

"""What an optimizer is to the climb."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from ..declared import Declared

Gradients = Callable[[], list[Tensor]]


class Step(Protocol):
    """One optimizer at work on one noise, whose leaves it moves in place uphill."""

    def __call__(self, gradients: Gradients, objective: Tensor) -> None:
        """Move on from the present point.

        gradients: gives d(objective)/d(leaf) here, clipped, once; who does not need it does not
            call it, and saves the backward.
        objective: (B,) here, for those who look at whether the last step helped.
        """


class Optimizer(Declared, ABC):
    """Gradient ascent on the noise. None has weight decay, which would shrink the noise out of
    N(0, I), and none mixes images: what image i does is a function of image i's numbers alone.
    """

    @abstractmethod
    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        """The optimizer at work on `leaves`, the first step of which starts here."""


def follow(leaves: Sequence[Tensor], optimizer: torch.optim.Optimizer) -> Step:
    """A torch optimizer that maximises as a Step."""

    def step(gradients: Gradients, objective: Tensor) -> None:
        del objective
        for leaf, gradient in zip(leaves, gradients(), strict=True):
            leaf.grad = gradient
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step

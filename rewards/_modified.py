"""Rewards made of rewards: what a modifier makes of one, and what all such have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from ..dno.objective import Reward


class Composed(Reward):
    """A reward made of others: its gradient, and what it scores, are theirs."""

    @property
    @abstractmethod
    def parts(self) -> tuple[Reward, ...]:
        """What it is made of."""

    @property
    def differentiable(self) -> bool:  # type: ignore[override]  # of the parts, and never set
        """Whether every part has a gradient."""
        return all(part.differentiable for part in self.parts)

    @property
    def space(self) -> Literal["image", "latent"]:  # type: ignore[override]
        """What the parts score."""
        return "latent" if any(part.space == "latent" for part in self.parts) else "image"


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Modified(Composed):
    """A reward between a change of the picture and a change of its value."""

    reward: Reward
    before: Callable[[Tensor], Tensor] = unchanged
    after: Callable[[Tensor], Tensor] = unchanged

    def check(self) -> None:
        if self.space == "latent" and self.before is not unchanged:
            raise ValueError(
                "This reward scores the latent, not the picture: it cannot be masked or cropped."
            )

    @property
    def parts(self) -> tuple[Reward, ...]:
        return (self.reward,)

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.after(self.reward(self.before(image)))

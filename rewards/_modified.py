"""What a modifier makes of a reward."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ..dno.objective import Reward


def unchanged(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Modified:
    """A reward between a change of the picture and a change of the score."""

    reward: Reward
    before: Callable[[Tensor], Tensor] = unchanged
    after: Callable[[Tensor], Tensor] = unchanged

    @property
    def differentiable(self) -> bool:
        """That of the reward: the changes have a gradient."""
        return self.reward.differentiable

    def __post_init__(self) -> None:
        if self.space == "latent" and self.before is not unchanged:
            raise ValueError(
                "This reward scores the latent, not the picture: it cannot be masked or cropped."
            )

    @property
    def space(self) -> str:
        """What the reward scores: "image" or "latent"."""
        return getattr(self.reward, "space", "image")

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.after(self.reward(self.before(image)))

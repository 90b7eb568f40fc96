from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..dno.objective import Reward


@dataclass(frozen=True)
class Darkness(Reward):
    """Darkens the picture without an end.

    Score: 1 - the mean of the sRGB values, in [0, 1]; 1 is a black picture. Direct Noise
    Optimization (arXiv 2405.18881, section 5) uses it to show reward hacking: drive it without a
    regularizer and the subject melts into black.

    >>> Darkness()(torch.full((1, 3, 8, 8), 0.25))
    tensor([0.7500])
    """

    group = "tone and colour"
    aliases = ("darker", "dark", "night", "black", "low key")
    span = "0 to 1"

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return 1 - image.mean(dim=(1, 2, 3))

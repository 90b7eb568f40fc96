from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..dno.objective import Reward
from ._colour import saturation


@dataclass(frozen=True)
class BlackAndWhite(Reward):
    """Drains the colour from the picture until it is black, white and grey.

    Score: 1 - saturation, where saturation is four times the mean OKLab chroma; 1 is a picture
    without colour, photographs start at 0.5 to 0.8, pure red all over is about -0.1.

    >>> BlackAndWhite()(torch.full((1, 3, 8, 8), 0.75)).round(decimals=3)
    tensor([1.])
    """

    group = "tone and colour"
    aliases = ("grayscale", "greyscale", "monochrome", "desaturate", "no colour")
    span = "-0.4 to 1"

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return 1 - saturation(image)

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Choice
from ..dno.objective import Reward
from ._picture import correlation

_FLIPS = {"left-right": (3,), "top-bottom": (2,), "half turn": (2, 3)}


@dataclass(frozen=True)
class Symmetry(Reward):
    """Makes the picture its own mirror image.

    Score: the correlation of the picture with its mirror image, in [-1, 1]; 1 is perfect symmetry,
    0 none (also a flat picture, so flattening gains nothing).

    >>> Symmetry("half turn")(torch.eye(8).expand(1, 3, 8, 8)).round(decimals=3)
    tensor([1.])
    """

    group = "structure"
    aliases = ("symmetric", "symmetrical", "mirror", "mirrored", "reflection")
    span = "-1 to 1"

    axis: Annotated[
        str,
        Choice(
            tuple(_FLIPS), help="left-right like a face, top-bottom like a lake, or a half turn."
        ),
    ] = "left-right"

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        shades = image - image.mean(dim=(2, 3), keepdim=True)
        return correlation(shades, shades.flip(_FLIPS[self.axis]), (1, 2, 3))

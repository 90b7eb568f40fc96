from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..dno.objective import Reward
from ._colour import luma
from ._picture import root, slopes


@dataclass(frozen=True)
class Sharpness(Reward):
    """Makes the edges of the picture crisp.

    Score: the steepness of the edges, in luma per pixel: the root of sum |g|^4 / sum |g|^2 over the
    luma's gradient g. Steep edges dominate, so that one crisp contour counts more than fine grain
    everywhere. 0 for a flat picture, about 0.1 for a soft and 0.3 for a crisp one, at most 1.4.
    Steepness is per pixel: the same picture scores lower at twice the size.

    >>> Sharpness()(torch.full((1, 3, 8, 8), 0.75))
    tensor([0.])
    """

    group = "structure"
    aliases = ("sharper", "crisp", "focus", "in focus", "detail")
    span = "0 to 1.4"

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        right, down = slopes(luma(image))
        energy = right.square() + down.square()
        steepness = energy.square().mean(dim=(1, 2)) / (energy.mean(dim=(1, 2)) + 1e-5)
        return root(steepness)

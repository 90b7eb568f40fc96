from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Range
from ..dno.objective import Reward


@dataclass(frozen=True)
class Brightness(Reward):
    """Pulls the mean pixel value towards a target.

    Score: -|mean - target| of the sRGB values, in [-1, 0]; 0 at the target, so that -0.1 means
    "off by a tenth of the way from black to white". The pull is equally strong at every distance;
    the kink at the target costs nothing, because the best iterate is kept and not the last. For a
    soft landing lower the learning rate. At the ends of the range the target does not matter: 1
    climbs, 0 descends.

    >>> Brightness(0.25)(torch.full((1, 3, 8, 8), 0.75))
    tensor([-0.5000])
    """

    group = "tone and colour"
    aliases = ("brighter", "lighter", "darker", "exposure", "light")
    span = "-1 to 0"

    target: Annotated[
        float, Range(0.0, 1.0, step=0.01, help="Mean pixel value to reach: 0 is black, 1 is white.")
    ] = 1.0

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return -(image.mean(dim=(1, 2, 3)) - self.target).abs()

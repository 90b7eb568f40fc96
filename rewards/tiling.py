from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Choice
from ..dno.objective import Reward
from ._picture import root

_SEAMS = {"both": (2, 3), "left-right": (3,), "top-bottom": (2,)}


@dataclass(frozen=True)
class Tiling(Reward):
    """Makes the picture repeat without a seam, as a texture.

    Score: minus the root mean square step across the seam, as far as the slopes on both of its
    sides do not explain it; 0 is seamless, about -0.3 two unrelated borders.

    >>> ramp = torch.linspace(0, 1, 8).expand(1, 3, 8, 8)
    >>> Tiling()(ramp) < Tiling()(torch.zeros(1, 3, 8, 8))
    tensor([True])
    """

    group = "structure"
    aliases = ("seamless", "tile", "tileable", "texture", "pattern", "repeat", "wallpaper")
    span = "-0.5 to 0"

    seam: Annotated[
        str, Choice(tuple(_SEAMS), help="Which borders shall meet: both pairs, or one only.")
    ] = "both"

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        broken = [self._broken(image.movedim(axis, 0)) for axis in _SEAMS[self.seam]]
        return -root(torch.stack(broken).sum(dim=0) / len(broken))

    @staticmethod
    def _broken(lines: Tensor) -> Tensor:
        """(N,B,...) lines along an axis -> (B,): mean square of the unexplained step."""
        count = len(lines)
        first, second, last, before = lines[0], lines[1 % count], lines[-1], lines[-2 % count]
        slope = (second - first + last - before) / 2
        return (first - last - slope).square().flatten(1).mean(dim=1)

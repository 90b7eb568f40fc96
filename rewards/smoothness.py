from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..dno.objective import Reward
from ._picture import root, slopes


@dataclass(frozen=True)
class Smoothness(Reward):
    """Calms the picture: fewer details, flatter areas.

    Total variation (Rudin, Osher, Fatemi 1992), which keeps edges and removes texture. Score:
    minus ten times the mean step between neighbouring pixels, 0 for a flat picture, -0.2 to -0.8
    for photographs, -5 for white noise.

    >>> Smoothness()(torch.rand(1, 3, 8, 8)) < Smoothness()(torch.zeros(1, 3, 8, 8))
    tensor([True])
    """

    group = "structure"
    aliases = ("smoother", "soft", "clean", "calm", "denoise", "less detail", "minimal")
    span = "-0.8 to 0, noise -5"

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        right, down = slopes(image)
        return -10 * root(right.square() + down.square()).mean(dim=(1, 2, 3))

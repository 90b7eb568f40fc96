from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import conv1d, interpolate, pad

from ..dno.declared import prepared
from ..dno.fields import Mask as MaskField
from ..dno.fields import Range, Switch
from ..dno.objective import Modifier, Reward
from ._modified import Modified


@dataclass(frozen=True, eq=False)
class Mask(Modifier):
    """Lets a reward see only a part of the picture.

    The reward is given the smallest rectangle around the mask, in which what lies outside the mask
    is filled with the mean colour of what lies inside: a mean, such as brightness, is then exactly
    that of the inside. The mask is stretched to the picture; several masks are joined.
    Score: the reward's.

    >>> left = torch.tensor([1.0, 0.0]).expand(1, 4, 2)
    >>> Mask(left, feather=0.0)(Darkness())(left[:, None].expand(1, 3, 4, 2))
    tensor([0.])
    """

    group = "modifiers"
    aliases = ("area", "region", "inpaint", "part of the picture", "background")

    area: Annotated[Tensor, MaskField(help="White where the reward shall look.")]
    feather: Annotated[
        float,
        Range(0.0, 0.5, step=0.01, help="Softness of the border, as a share of the shorter side."),
    ] = 0.02
    invert: Annotated[bool, Switch(help="Look outside of the mask instead of inside.")] = False

    @prepared
    def _weights(self) -> Tensor:
        """(H,W) in [0,1]: how much each place of the mask lets through."""
        joined = self.area.double().amax(dim=0)
        area = 1 - joined if self.invert else joined
        if area.amax() < 0.01:
            what = "covers the whole picture" if self.invert else "is empty"
            raise ValueError(
                f"Mask: area {what}, so that nothing is left; paint another part white."
            )
        area = _blur(area, self.feather * min(area.shape[-2:]))
        return area / area.amax()

    @prepared
    def _box(self) -> list[tuple[float, float]]:
        """First and last row, then column, as shares of the sides."""
        return [_extent(self._weights.amax(dim)) for dim in (1, 0)]

    @property
    def label(self) -> str:
        return "{} outside the mask" if self.invert else "{} inside the mask"

    def __call__(self, reward: Reward) -> Modified:
        """Reward -> Reward"""
        return Modified(reward, before=self._inside)

    def _inside(self, image: Tensor) -> Tensor:
        area = self._weights.to(image)[None, None]
        area = interpolate(area, image.shape[-2:], mode="bilinear", align_corners=False)
        total = area.sum(dim=(2, 3), keepdim=True).clamp(min=1e-6)
        mean = (area * image).sum(dim=(2, 3), keepdim=True) / total
        rows, columns = (
            slice(
                math.floor(start * side), max(math.ceil(end * side), math.floor(start * side) + 1)
            )
            for (start, end), side in zip(self._box, image.shape[-2:], strict=True)
        )
        return (mean + area * (image - mean))[..., rows, columns]


def _extent(profile: Tensor) -> tuple[float, float]:
    """Where a profile (N,) is above 0.01, as shares of its length."""
    inside = torch.nonzero(profile > 0.01).flatten()
    return inside[0].item() / len(profile), (inside[-1].item() + 1) / len(profile)


def _blur(area: Tensor, sigma: float) -> Tensor:
    """(H,W) blurred by a Gaussian of `sigma` pixels, the border repeated."""
    reach = math.ceil(3 * sigma)
    if reach == 0:
        return area
    offset = torch.arange(-reach, reach + 1, dtype=area.dtype)
    kernel = torch.exp(-0.5 * (offset / sigma).square())
    kernel = (kernel / kernel.sum())[None, None]
    for _ in range(2):
        lines = pad(area[:, None], (reach, reach), mode="replicate")
        area = conv1d(lines, kernel)[:, 0].mT
    return area

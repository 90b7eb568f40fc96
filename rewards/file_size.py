from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Choice, Range
from ..dno.objective import Reward
from ._encode import kilobytes

_FORMATS = {
    "PNG": {"format": "PNG", "compress_level": 6},
    "WebP lossless": {"format": "WebP", "lossless": True, "method": 2},
    "WebP": {"format": "WebP", "quality": 80, "method": 2},
}


@dataclass(frozen=True)
class FileSize(Reward):
    """Pulls the size of the picture's PNG or WebP file towards a target.

    Lossless formats count every grain of noise, so a small file is a flat, clean picture. Score:
    minus the distance from the target in kB (1000 bytes); it grows with the number of pixels, so
    give it a weight of about 0.01 beside others. It has no gradient.

    >>> grain, flat = torch.rand(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    >>> FileSize()(grain) < FileSize()(flat)
    tensor([True])
    """

    group = "files"
    aliases = ("small file", "PNG", "WebP", "kilobytes", "compress", "flat")
    span = "-400 at 512 px"
    differentiable = False

    format: Annotated[
        str, Choice(tuple(_FORMATS), help="Type of the file; WebP alone is lossy, at quality 80.")
    ] = "PNG"
    target: Annotated[
        float, Range(0.0, 100000.0, step=1.0, help="Size to reach in kB; 0 for as small as can be.")
    ] = 0.0

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return -(kilobytes(image, **_FORMATS[self.format]) - self.target).abs()

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ..dno.objective import Reward
from ._encode import kilobytes
from ._fields import QualityField


@dataclass(frozen=True)
class JPEGIncompressibility(Reward):
    """Makes the picture's JPEG file large: rich in detail.

    Score: the size in kB (1000 bytes), as in Direct Noise Optimization, arXiv 2405.18881, section
    6. About 100 for a busy photograph of 512 pixels at quality 95, 5 for a flat one; it grows with
    the number of pixels, so give it a weight of about 0.01 beside others. It has no gradient.

    >>> grain, flat = torch.rand(1, 3, 64, 64), torch.zeros(1, 3, 64, 64)
    >>> JPEGIncompressibility()(grain) > JPEGIncompressibility()(flat)
    tensor([True])
    """

    group = "files"
    aliases = ("large file", "larger", "detailed", "busy", "rich in detail", "complex")
    span = "100 at 512 px"
    differentiable = False

    quality: QualityField = 95

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return kilobytes(image, format="JPEG", quality=self.quality)

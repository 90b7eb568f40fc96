from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Image
from ..dno.objective import Reward
from ._fields import EncoderField


@dataclass(frozen=True, eq=False)
class ImageSimilarity(Reward):
    """Brings the picture's content closer to that of a reference picture.

    What is alike is what the encoder finds alike: subject and mood with CLIP and SigLIP, also pose
    and structure with DINOv2 (arXiv 2304.07193). Score: the cosine of the two pictures'
    embeddings, at most 1; unrelated pictures have about 0.5 with CLIP and 0.1 with DINOv2. Of
    several references the nearest counts.
    """

    group = "learned"
    aliases = ("like this picture", "reference", "face", "character", "subject", "likeness", "DINO")
    span = "up to 1"

    encoder: EncoderField
    reference: Annotated[Tensor, Image(help="A picture, or several, to come close to.")]

    @prepared
    @torch.no_grad()
    def _wanted(self) -> Tensor:
        """(R,D)"""
        references = self.reference.clamp(0, 1)
        return torch.cat([self.encoder.image_embed(one[None]) for one in references])

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return (self.encoder.image_embed(image) @ self._wanted.to(image).T).amax(dim=1)

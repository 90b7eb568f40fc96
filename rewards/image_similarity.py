from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Image, Model, check_fields
from .models.clip import CLIP
from .models.vision import VisionEncoder


@dataclass(frozen=True, eq=False)
class ImageSimilarity:
    """Brings the picture's content closer to that of a reference picture.

    What is alike is what the encoder finds alike: subject and mood with CLIP and SigLIP, also pose
    and structure with DINOv2 (arXiv 2304.07193). Score: the cosine of the two pictures'
    embeddings, at most 1; unrelated pictures have about 0.5 with CLIP and 0.1 with DINOv2. Of
    several references the nearest counts.
    """

    encoder: Annotated[
        VisionEncoder,
        Model((CLIP, VisionEncoder), help="CLIP, SigLIP or DINOv2, or any CLIP vision model."),
    ]
    reference: Annotated[Tensor, Image(help="A picture, or several, to come close to.")]
    differentiable = True

    def __post_init__(self) -> None:
        check_fields(self)
        with torch.no_grad():
            wanted = [self.encoder.image_embed(one[None]) for one in self.reference.clamp(0, 1)]
        object.__setattr__(self, "_wanted", torch.cat(wanted))

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return (self.encoder.image_embed(image) @ self._wanted.to(image).T).amax(dim=1)

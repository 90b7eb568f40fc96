"""Rewards that are the cosine of a picture's and a prompt's embedding."""

from __future__ import annotations

from torch import Tensor

from ..dno.declared import prepared
from ..dno.objective import Reward
from .models.clip import CLIP
from .models.preprocess import Preprocess
from .models.siglip import SigLIP


class Cosine(Reward):
    """A reward with the fields `model` and `prompt`."""

    model: CLIP | SigLIP
    prompt: str

    @prepared
    def _text(self) -> Tensor:
        """(1,D): what the picture's embedding, of unit length, is multiplied with."""
        return self.model.text_embed([self.prompt])

    def _cosine(self, image: Tensor, preprocess: Preprocess | None = None) -> Tensor:
        """(B,3,H,W) -> (B,); preprocess: how the picture is shown, where not as the model wants."""
        return (self.model.image_embed(image, preprocess) * self._text.to(image)).sum(dim=1)

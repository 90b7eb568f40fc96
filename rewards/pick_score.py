from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Model
from ._cosine import Cosine
from ._fields import PromptField
from .models.clip import CLIP


@dataclass(frozen=True, eq=False)
class PickScore(Cosine):
    """Makes a picture that people would pick for this prompt.

    PickScore (arXiv 2305.01569): a CLIP-H trained on the choices of users. Score: exp(logit_scale)
    times the cosine of picture and prompt, about 18 to 24; 0.5 more is a clearly better picture.
    """

    title = "PickScore"
    group = "learned"
    aliases = ("preference", "prompt adherence", "quality", "better", "prettier")
    span = "about 18 to 24"

    model: Annotated[
        CLIP, Model((CLIP,), help="yuvalkirstain/PickScore_v1, from Load Reward Model.")
    ]
    prompt: PromptField

    @prepared
    def _text(self) -> Tensor:
        """(1,D)"""
        return self.model.scale * self.model.text_embed([self.prompt])

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        cut = replace(self.model.preprocess, floor=True)  # as transformers' CLIPProcessor
        return self._cosine(image, cut)

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated

from torch import Tensor

from ..dno.fields import Model
from ._cosine import Cosine
from ._fields import PromptField
from .models.clip import CLIP


@dataclass(frozen=True, eq=False)
class HPSv2(Cosine):
    """Makes a picture that people would prefer for this prompt.

    Human Preference Score v2 and v2.1 (arXiv 2306.09341): a CLIP-H trained on 800 000 choices;
    the weights say which. The whole picture is seen, with black bars where it is not square.
    Score: the cosine of picture and prompt, about 0.2 to 0.35; 0.01 more is a better picture.
    """

    title = "HPSv2"
    group = "learned"
    aliases = ("preference", "human preference", "prompt adherence", "quality", "better")
    span = "about 0.2 to 0.35"

    model: Annotated[
        CLIP, Model((CLIP,), help="xswu/HPSv2, version 2 or 2.1, from Load Reward Model.")
    ]
    prompt: PromptField

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        whole = replace(self.model.preprocess, fit="pad", overshoot=True)
        return self._cosine(image, whole)

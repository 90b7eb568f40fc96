from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Model
from ..dno.objective import Reward
from ._fields import PromptField
from .models import hpsv3


@dataclass(frozen=True, eq=False)
class HPSv3(Reward):
    """Makes a picture that people would prefer for this prompt, as a vision language model judges.

    HPSv3 (arXiv 2508.03789): Qwen2-VL-7B trained on a million choices, the closest to people of the
    preference scores here and the heaviest. Score: the mean of its score, without a bound; pictures
    of SD 2.1 have about 0, of SDXL 8, of FLUX 10.
    """

    title = "HPSv3"
    group = "learned"
    aliases = ("preference", "human preference", "prompt adherence", "quality", "better")
    span = "about 0 to 15"

    model: Annotated[
        hpsv3.HPSv3, Model((hpsv3.HPSv3,), help="MizzenAI/HPSv3, from Load Reward Model.")
    ]
    prompt: PromptField

    @prepared
    def _tokens(self) -> tuple[Tensor, Tensor]:
        return self.model.tokenize(self.prompt)

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.model.reward(image, self._tokens)[:, 0]

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Model
from ..dno.objective import Reward
from ._fields import PromptField
from .models.mps import MPSModel, Prompt


@dataclass(frozen=True, eq=False)
class MPS(Reward):
    """Makes a picture that people prefer for this prompt in look, detail and meaning.

    Multi-dimensional Preference Score (arXiv 2405.14705): a CLIP-H whose patches look at the words
    of the prompt. Score: exp(logit_scale), about 100, times the cosine of picture and prompt; only
    scores for the same prompt compare.
    """

    group = "learned"
    aliases = ("preference", "prompt adherence", "quality", "detail", "better", "hands")
    span = "cosine times about 100"

    model: Annotated[MPSModel, Model((MPSModel,), help="RE-N-Y/mpsv1, from Load Reward Model.")]
    prompt: PromptField

    @prepared
    def _prompt(self) -> Prompt:
        return self.model.text_embed(self.prompt)

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.model.reward(image, self._prompt)

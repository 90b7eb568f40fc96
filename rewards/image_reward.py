from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Model
from ..dno.objective import Reward
from ._fields import PromptField
from .models.image_reward import ImageRewardModel


@dataclass(frozen=True, eq=False)
class ImageReward(Reward):
    """Makes a picture that experts rate well for this prompt.

    ImageReward (arXiv 2304.05977): a BLIP that reads the prompt while it looks at the picture.
    Score: about -2.5 to 2, 0 on average and 1 apart on the pictures of its training; of a prompt,
    the first 35 words and parts of words are read.
    """

    title = "ImageReward"
    group = "learned"
    aliases = ("preference", "prompt adherence", "quality", "better", "rating", "BLIP")
    span = "about -2.5 to 2"

    model: Annotated[
        ImageRewardModel,
        Model((ImageRewardModel,), help="THUDM/ImageReward, from Load Reward Model."),
    ]
    prompt: PromptField

    @prepared
    def _tokens(self) -> tuple[Tensor, Tensor]:
        return self.model.tokenize(self.prompt)

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.model.reward(image, self._tokens)

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Model, Text, check_fields
from .models.image_reward import ImageRewardModel


@dataclass(frozen=True, eq=False)
class ImageReward:
    """Makes a picture that experts rate well for this prompt.

    ImageReward (arXiv 2304.05977): a BLIP that reads the prompt while it looks at the picture.
    Score: about -2.5 to 2, 0 on average and 1 apart on the pictures of its training; of a prompt,
    the first 35 words and parts of words are read.
    """

    model: Annotated[
        ImageRewardModel,
        Model((ImageRewardModel,), help="THUDM/ImageReward, from Load Reward Model."),
    ]
    prompt: Annotated[str, Text(help="The prompt of the picture, or what people should see in it.")]
    differentiable = True
    title = "ImageReward"

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "_tokens", self.model.tokens(self.prompt))

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.model.score(image, self._tokens)

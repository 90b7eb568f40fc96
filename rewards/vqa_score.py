from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Choice, Model, Text
from ..dno.objective import Reward
from .models.vqa import VQA


@dataclass(frozen=True, eq=False)
class VQAScore(Reward):
    """Makes a picture of which a model that answers questions says that it shows the text.

    VQAScore (arXiv 2404.01291): the probability of the answer "Yes" to the question, which follows
    compositions (who does what to whom, how many, where) better than CLIP. Score: that probability,
    0 to 1; with scale "log-probability" its logarithm, 0 at best, whose gradient does not vanish
    while the answer is still no.
    """

    title = "VQAScore"
    group = "learned"
    aliases = ("prompt adherence", "closer to the prompt", "counting", "how many", "who does what")
    span = "0 to 1, or its logarithm"

    model: Annotated[
        VQA, Model((VQA,), help="zhiqiulin/clip-flant5-xl or -xxl, from Load Reward Model.")
    ]
    prompt: Annotated[str, Text(help="What the picture shall show.")]
    scale: Annotated[
        str,
        Choice(
            ("probability", "log-probability"),
            help="The published score, or its logarithm, which also pulls where the score is 0.",
        ),
    ] = "probability"
    question: Annotated[
        str, Text(help="What is asked, to be answered with Yes; {} is where the prompt goes.")
    ] = 'Does this figure show "{}"? Please answer yes or no.'

    @prepared
    def _tokens(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.model.tokenize(self.question.replace("{}", self.prompt), "Yes")

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        logarithm = self.model.log_probability(image, self._tokens)
        return logarithm.exp() if self.scale == "probability" else logarithm

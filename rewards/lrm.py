from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Model, Range
from ..dno.objective import Reward
from ._fields import PromptField
from .models import lrm


@dataclass(frozen=True, eq=False)
class LRM(Reward):
    """Makes a picture that people would prefer for this prompt, by its latent alone.

    Latent Reward Model (arXiv 2502.01051): the UNet of SD 1.5 or SDXL, trained on people's choices,
    scores the latent with the noise of a timestep. Nothing is decoded for it, so it is quicker and
    takes less memory than any score of pictures. For latents of the same family only. Score: a
    scaled cosine, within -15 to 15; 0.5 more is a clearly better picture.
    """

    group = "learned"
    aliases = ("preference", "latent", "fast", "quality", "without decoding", "better")
    span = "-15 to 15"
    space = "latent"

    model: Annotated[
        lrm.LRM,
        Model(
            (lrm.LRM,),
            help="casiatao/LRM, from Load Reward Model: the one of your checkpoint's family.",
        ),
    ]
    prompt: PromptField
    timestep: Annotated[
        int,
        Range(
            1,
            951,
            step=50,
            help="With how much noise it looks: 1 sees details, 500 only the composition.",
        ),
    ] = 1

    @prepared
    def _words(self) -> lrm.Words:
        return self.model.text_embed(self.prompt)

    def __call__(self, latent: Tensor) -> Tensor:
        """(B,4,h,w) in the diffusion model's space -> (B,)"""
        return self.model.reward(latent, self._words, self.timestep)

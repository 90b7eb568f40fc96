from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.fields import Model, Text
from ._cosine import Cosine
from .models.clip import CLIP
from .models.siglip import SigLIP


@dataclass(frozen=True, eq=False)
class CLIPTextSimilarity(Cosine):
    """Brings the picture closer to a text.

    CLIPScore (arXiv 2104.08718) without its factor 2.5 and its floor. Score: the cosine of the
    picture's and the text's embedding, in [-1, 1]; a fitting picture has about 0.3 with OpenAI's
    CLIP and 0.1 with SigLIP, an unrelated one 0.15 and 0.
    """

    group = "learned"
    aliases = ("prompt adherence", "text", "prompt", "words", "CLIP", "SigLIP")
    span = "0.15 to 0.35, SigLIP 0 to 0.2"

    model: Annotated[
        CLIP | SigLIP,
        Model((CLIP, SigLIP), help="A CLIP or SigLIP with both towers, from Load Reward Model."),
    ]
    prompt: Annotated[str, Text(help="What the picture shall show.")]

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self._cosine(image)

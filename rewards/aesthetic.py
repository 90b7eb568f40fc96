from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from torch import Tensor

from ..dno.declared import prepared
from ..dno.fields import Model
from ..dno.objective import Reward
from .models.aesthetic import AestheticHead
from .models.clip import CLIP
from .models.vision import VisionEncoder

_TRAINED_ON = {"clip": "CLIP ViT-L/14", "siglip": "SigLIP so400m-patch14-384"}


@dataclass(frozen=True, eq=False)
class Aesthetic(Reward):
    """Makes the picture more beautiful, whatever it shows.

    LAION's aesthetic predictor v2 (sac+logos+ava1-l14-linearMSE) on CLIP ViT-L/14, or Aesthetic
    Predictor v2.5 on SigLIP so400m; the weights say which. Score: what people would give it from 1
    to 10. By v2 most pictures have 4 to 6 and 6.5 is very good; by v2.5, 5.5 is.
    """

    group = "learned"
    aliases = ("prettier", "pretty", "beautiful", "beauty", "quality", "better", "LAION")
    span = "1 to 10"

    model: Annotated[
        AestheticHead,
        Model((AestheticHead,), help="The predictor, from Load Reward Model."),
    ]
    encoder: Annotated[
        VisionEncoder | None,
        Model(
            (CLIP, VisionEncoder),
            help="What the predictor was trained on, CLIP ViT-L/14 or for v2.5 SigLIP so400m; not "
            "needed where its file holds it.",
        ),
    ] = None

    @prepared
    def _encoder(self) -> VisionEncoder:
        head, encoder = self.model, self.encoder or self.model.encoder
        wanted = _TRAINED_ON[head.family]
        if encoder is None:
            raise ValueError(
                f"Aesthetic: this predictor's file has no encoder; connect {wanted} to encoder."
            )
        if (encoder.family, encoder.width) != (head.family, head.width):
            raise ValueError(
                f"Aesthetic: this predictor reads {head.width} numbers of {wanted}, and encoder "
                f"gives {encoder.width} of {encoder.title}; connect {wanted}."
            )
        if not encoder.pooled:
            raise ValueError(
                "Aesthetic: this predictor reads SigLIP's pooled embedding, which ComfyUI's CLIP "
                f"vision models lack; connect {wanted} from Load Reward Model."
            )
        return encoder

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) -> (B,)"""
        return self.model.reward(self._encoder.image_embed(image))

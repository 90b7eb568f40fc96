"""Fields that several rewards have."""

from __future__ import annotations

from typing import Annotated

from ..dno.fields import Model, Range, Text
from .models.clip import CLIP
from .models.vision import VisionEncoder

PromptField = Annotated[
    str, Text(help="The prompt of the picture, or what people should see in it.")
]
EncoderField = Annotated[
    VisionEncoder,
    Model((CLIP, VisionEncoder), help="CLIP, SigLIP or DINOv2, or any CLIP vision model."),
]
QualityField = Annotated[
    int,
    Range(1, 95, step=1, help="JPEG quality; 95 as in the paper, lower weighs coarse detail."),
]

"""The networks behind learned rewards, one architecture per file, recognised by their weights."""

from __future__ import annotations

from torch import nn

from .aesthetic import AestheticHead
from .building import without_prefix
from .clip import CLIP, CLIPVision
from .dinov2 import DINOv2
from .files import Stored
from .hpsv3 import HPSv3
from .image_reward import ImageRewardModel
from .lrm import LRM
from .mps import MPSModel
from .siglip import SigLIP, SigLIPVision
from .vqa import VQA

MODELS = (
    AestheticHead,
    MPSModel,
    CLIP,
    SigLIP,
    CLIPVision,
    SigLIPVision,
    DINOv2,
    ImageRewardModel,
    VQA,
    HPSv3,
    LRM,
)
"""Every architecture, the more special ones first."""

_PREFIXES = ("module.", "model.", "clip.", "backbone.")


def build(stored: Stored) -> nn.Module:
    """The network that these weights are of, frozen, in their own precision.

    Raises ValueError, one sentence that names the file, where they are of none that is known.
    """
    for prefixes in ((), _PREFIXES):
        names = without_prefix(stored.tensors, prefixes)
        state = {names[name]: tensor for name, tensor in stored.tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        for architecture in MODELS:
            if architecture.matches(shapes):
                return architecture.build(state, stored.config or None)
    known = ", ".join(architecture.title for architecture in MODELS)
    raise ValueError(
        f"{stored.path.name} is not a reward model that is known here: {known}. "
        f"Its first weight is {next(iter(stored.tensors), 'missing')}."
    )

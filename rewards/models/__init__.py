"""The networks behind learned rewards, one architecture per file, recognised by their weights."""

from __future__ import annotations

from torch import Tensor

from ...dno.fields import article
from .aesthetic import AestheticHead
from .building import without_prefix
from .clip import CLIP, CLIPVision
from .dinov2 import DINOv2
from .files import Stored
from .hpsv3 import HPSv3
from .image_reward import ImageRewardModel
from .lrm import LRM
from .mps import MPSModel
from .network import Architecture, Network
from .siglip import SigLIP, SigLIPVision
from .vqa import VQA

MODELS: tuple[type[Architecture], ...] = (
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


def build(stored: Stored) -> Network:
    """The network that these weights are of, frozen, in their own precision.

    Raises ValueError, one sentence that names the file, where they are of none that is known.
    """
    for prefixes in ((), _PREFIXES):
        names = without_prefix(stored.tensors, prefixes)
        state = {names[name]: tensor for name, tensor in stored.tensors.items()}
        shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
        for architecture in MODELS:
            if architecture.matches(shapes):
                return _built(architecture, state, stored)
    known = ", ".join(architecture.title for architecture in MODELS)
    raise ValueError(
        f"{stored.path.name} is not a reward model that is known here: {known}. "
        f"Its first weight is {next(iter(stored.tensors), 'missing')}."
    )


def _built(
    architecture: type[Architecture], state: dict[str, Tensor], stored: Stored
) -> Architecture:
    try:
        return architecture.build(state, stored.config or None)
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # of weights or settings that no network of this kind has
        reason = (str(error).splitlines() or [""])[0]
        if isinstance(error, ValueError) and reason.endswith("."):
            raise ValueError(f"{stored.path.name}: {reason}") from None
        kind = architecture.title
        raise ValueError(
            f"{stored.path.name} does not fit together as {article(kind)} {kind} "
            f"({type(error).__name__}: {reason}): get the published file."
        ) from error

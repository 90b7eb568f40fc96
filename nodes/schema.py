"""Where the pack meets this ComfyUI's node API: socket types, schemas, and the layout of images.

ComfyUI holds pictures as (B,H,W,C); the engine and the rewards hold (B,3,H,W). They are converted
here and nowhere else.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image
from torch import Tensor

from .host.compat import searched_by, supported

CATEGORY = "sampling/DNO"
_ALWAYS = ("dno", "direct noise optimization")  # words that find every node of the pack

RewardSocket = io.Custom("DNO_REWARD")
RegularizerSocket = io.Custom("DNO_REGULARIZER")
OptimizerSocket = io.Custom("DNO_OPTIMIZER")
GradientSocket = io.Custom("DNO_GRADIENT")
OptionsSocket = io.Custom("DNO_OPTIONS")
RewardModelSocket = io.Custom("DNO_REWARD_MODEL")
HistorySocket = io.Custom("DNO_HISTORY")


def schema(*, search_aliases: Sequence[str] = (), **keywords: object) -> io.Schema:
    """`io.Schema(**keywords)` without the keywords that this ComfyUI does not know.

    search_aliases: words that find the node, besides those that find every node of the pack.
    """
    own = [word for word in search_aliases if word.casefold() not in _ALWAYS]
    searched_by(keywords, own, _ALWAYS)
    return supported(io.Schema, **keywords)


NOTED = [io.Hidden.prompt, io.Hidden.extra_pnginfo]  # what host.metadata needs of the host


def output(socket: type[io.ComfyTypeIO], kind: str) -> io.Output:
    """The one output of a node that makes a reward, a regularizer or an optimizer."""
    return socket.Output(
        display_name=kind, tooltip=f"For the {kind} input of a DNO Sampler or of another node."
    )


def to_image(image: Tensor) -> Tensor:
    """An IMAGE of the host, (B,H,W,C) -> (B,3,H,W) fp32 that autograd may use; alpha is dropped."""
    with torch.inference_mode(False), torch.no_grad():
        image = image[None] if image.ndim == 3 else image
        colours = image[..., :3] if image.shape[-1] >= 3 else image[..., [0, 0, 0]]
        return colours.movedim(-1, 1).float().clamp(0, 1).contiguous()  # BHWC -> BCHW


def to_mask(mask: Tensor) -> Tensor:
    """A MASK of the host, (H,W), (B,H,W) or (B,1,H,W) -> (B,H,W) fp32 that autograd may use."""
    with torch.inference_mode(False), torch.no_grad():
        return mask.reshape(-1, *mask.shape[-2:]).float().clamp(0, 1).contiguous()


def to_bhwc(image: Tensor) -> Tensor:
    """(B,3,H,W) -> an IMAGE of the host: (B,H,W,3), fp32 on the CPU."""
    return image.detach().movedim(1, -1).float().cpu().contiguous()  # BCHW -> BHWC


def drawn(picture: Image.Image) -> Tensor:
    """A drawing -> an IMAGE of the host: (1,H,W,3)."""
    return torch.from_numpy(np.array(picture.convert("RGB"))).float()[None] / 255


def for_json(values: Iterable[float]) -> list[float | None]:
    """JSON has no NaN and no infinity: null stands for them."""
    return [value if math.isfinite(value) else None for value in values]

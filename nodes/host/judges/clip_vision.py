"""ComfyUI's CLIP_VISION as an encoder of rewards: its own modules, with a gradient.

ComfyUI's `encode_image` rounds to 8 bits, which has no gradient, and its layers write in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from weakref import WeakKeyDictionary

import torch
from comfy.clip_vision import ClipVisionModel
from torch import Tensor, nn

from ....dno.autograd.blocks import by_block
from ....dno.autograd.recompute import Recomputer
from ....dno.autograd.saved import Again, fetched
from ....rewards.models.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from ....rewards.models.vision import VisionEncoder, collecting
from ..compat import training
from ..sampling.weights import offload_streams_wait

_known: WeakKeyDictionary[ClipVisionModel, ComfyVision] = WeakKeyDictionary()


def as_encoder(value: object) -> object:
    """A CLIP_VISION as an encoder, always the same one; anything else as it is."""
    if not isinstance(value, ClipVisionModel):
        return value
    if value not in _known:
        _known[value] = ComfyVision(value)
    return _known[value]


class ComfyVision(VisionEncoder):
    """CLIP, SigLIP or DINOv2 as ComfyUI loads it, in fp32 maths as there.

    ComfyUI's SigLIP has no pooling head: its embedding is the mean of its patches.
    """

    title = "CLIP vision of ComfyUI"

    def __init__(self, host: ClipVisionModel) -> None:
        super().__init__()
        if "siglip2" in str(getattr(host, "model_type", "")):
            raise ValueError(
                "This CLIP vision model is a SigLIP 2 of any size (NaFlex), which has no gradient "
                "here: use one of fixed size, for example siglip2-so400m-patch14-384."
            )
        self.network, self.patcher = host.model, host.patcher
        mean = tuple(getattr(host, "image_mean", CLIP_MEAN))
        std = tuple(getattr(host, "image_std", CLIP_STD))
        lists = [part for part in self.network.modules() if isinstance(part, nn.ModuleList)]
        self._layers = max(lists, key=len)
        recomputers = {layer: Recomputer(remember=lambda: training) for layer in self._layers}
        self._recomputers: dict[nn.Module, Recomputer] = recomputers
        self._again: Again | None = None
        tower = getattr(self.network, "vision_model", None)
        self.family = "clip" if tower is not None else "dinov2"
        if tower is not None and tower.embeddings.class_embedding is None:
            self.family, self.pooled = "siglip", False
        fit = "stretch" if self.family == "siglip" else "crop"
        self.preprocess = Preprocess(host.image_size, fit, mean, std, floor=True)

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        projection = getattr(self.network, "visual_projection", None)
        if hasattr(projection, "weight"):
            return len(projection.weight)
        return next(len(w) for w in self.network.parameters() if w.ndim == 4)  # of the patches

    def see(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed (B,3,S,S) -> the embedding (B,D), and the middle layers' patches (B,N,C)."""
        given = pixels.to(self.patcher.load_device)
        offload_streams_wait(given.device)
        with ExitStack() as stack:
            stack.enter_context(training(torch.is_grad_enabled()))
            stack.enter_context(by_block(self._layers, self._recomputers))
            stack.enter_context(fetched(self._again))
            stack.enter_context(_given_copies(self._layers))
            middle = stack.enter_context(collecting(self._layers))
            embed = self.network(pixel_values=given)[2]
        embed = embed if embed.ndim == 2 else embed.mean(dim=1)
        patches = (tokens[:, _others(tokens.shape[1]) :] for tokens in middle)
        return tuple(part.to(pixels) for part in (embed, *patches))

    @contextmanager
    def fetching(self, again: Again | None) -> Iterator[None]:
        """Within, backward too, `again` fetches the weights that ComfyUI casts or streams."""
        self._give(again)
        try:
            yield
        finally:
            self._give(None)

    def _give(self, again: Again | None) -> None:
        self._again = again
        for recomputer in self._recomputers.values():
            recomputer.again = again


def _others(tokens: int) -> int:
    """How many of the tokens come before the square of patches: a class token, registers."""
    return tokens - math.isqrt(tokens) ** 2


@contextmanager
def _given_copies(layers: nn.ModuleList) -> Iterator[None]:
    """Within, without a gradient, no layer writes into what the one before gave, which is seen."""

    def copy(layer: nn.Module, arguments: tuple) -> tuple | None:
        return None if torch.is_grad_enabled() else (arguments[0].clone(), *arguments[1:])

    handles = [layer.register_forward_pre_hook(copy) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()

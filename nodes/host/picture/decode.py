"""Latent to image with a gradient: `VAE.decode` clamps and may fall back to tiles without one."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Callable
from functools import partial

import comfy.model_management as management
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from ....dno.autograd.generators import same_draws
from ....dno.autograd.recompute import Recomputer
from ....dno.autograd.saved import Again
from ....dno.autograd.scaled import scaled
from ..sampling.weights import offload_streams_wait
from .plan import Measured, Way, measured
from .repeatable import recomputed, single_frame


class Decoder:
    """Decodes latents of the model's own space to (B,3,H,W) in [0,1].

    latent_out: the model's `process_latent_out`, from sampling space to the VAE's.
    room:       bytes that decoding with its backward may take. It is then decoded as a whole,
                else block by block, one image after the other, or at last in overlapping tiles;
                where memory runs out all the same, forward or backward, in the next of these ways.
    small:      what to say of a smaller decoder, if there is one.
    again:      fetches the VAE's weights in backward, where they are cast or streamed.
    """

    def __init__(
        self,
        vae,
        latent_out: Callable[[Tensor], Tensor],
        room: float = math.inf,
        small: str = "",
        again: Again | None = None,
    ):
        self.vae, self._latent_out, self._room, self._small = vae, latent_out, room, small
        self._again = again
        self._scale, self._shift = _output_map(vae.process_output)
        half = vae.vae_dtype == torch.float16
        self._kept = scaled if half else lambda call: call  # its gradient does not vanish
        self._decode = self._kept(self._plain)
        self._recomputers: dict[nn.Module, Recomputer] = {}
        self._ways: list[Way] = []
        self._shape: torch.Size | None = None  # of the latents that the ways are for

    def __call__(self, latent: Tensor) -> Tensor:
        latent = self._latent_out(_single(latent))
        if latent.ndim == 5 and self.vae.latent_dim == 2:
            latent = latent[:, :, 0]
        latent = latent.to(self.vae.device)
        if self._shape is None or latent.shape[1:] != self._shape[1:]:
            self._ways, self._shape = self._planned(latent.shape), latent.shape
        if latent.requires_grad:
            decoded = _Falling.apply(self, latent)
        else:  # a multiple of the batch, as estimated gradients ask for, is not what was planned
            parts = latent.split(self._shape[0])
            decoded = torch.cat([self.attempt(part)[0] for part in parts])
        return _ClampInwards.apply(decoded * self._scale + self._shift)

    def _plain(self, latent: Tensor) -> Tensor:
        network = self.vae.first_stage_model
        with single_frame(network), same_draws(self.vae.device):  # LTXV's adds noise
            decoded = _single(network.decode(latent.to(self.vae.vae_dtype)))
        if decoded.ndim == 5:  # one frame of a video VAE (Qwen-Image, Wan as an image model)
            decoded = decoded[:, :, 0]
        return decoded[:, :3]

    @property
    def way(self) -> Way:
        """How pictures are decoded now."""
        return self._ways[0] if self._ways else Way(0)

    def memory(self, shape: torch.Size) -> int:
        """Bytes that the least exact way takes for latents of this shape, with its backward."""
        return min(way.bytes for way in self._measured().ways(shape) if way.exact)

    def way_for(self, shape: torch.Size) -> Way:
        """How latents of this shape are going to be decoded."""
        return self._planned(shape)[0]

    def picture_for(self, shape: torch.Size) -> Tensor:
        """A grey picture (B,3,H,W) as large as latents of this shape become."""
        sides = (side * self.vae.spacial_compression_decode() for side in shape[-2:])
        return torch.full((shape[0], 3, *sides), 0.5, device=self.vae.device)

    def _planned(self, shape: torch.Size) -> list[Way]:
        if math.isinf(self._room):
            return [Way(0)]
        return self._measured().within(shape, self._room)

    def _measured(self) -> Measured:
        return measured(self.vae, self._decode)

    def attempt(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        """(decoded, latent), with a graph between them if it requires one, the best way it can."""
        while True:
            leaf = latent.detach().requires_grad_(latent.requires_grad)
            try:
                return self._by(self.way, leaf), leaf
            except management.OOM_EXCEPTION:
                if self.at_last():
                    raise
            del leaf  # not in the handler, whose exception holds on to all that was made
            self.fall(latent.shape)

    def fall(self, shape: torch.Size) -> None:
        """Take the next way, for memory has run out."""
        gc.collect()  # what failed hangs on the exception, and that on itself
        management.soft_empty_cache()
        if not self._ways[0].bytes:  # nothing was measured yet
            self._ways = self._measured().ways(shape)
        self._ways = self._ways[1:]
        logging.warning("DNO: the decoder ran out of memory; it goes on %s.", self.text())

    def at_last(self) -> bool:
        """Whether there is no other way left."""
        return len(self._ways) == 1 and self._ways[0].bytes > 0

    def text(self) -> str:
        """How pictures are decoded, in words; empty if as a whole."""
        way = self.way
        if not way.exact:
            return f"decoding in {way.count} overlapping tiles, approximate at their seams"
        if way.tiles:
            return "decoding one image at a time"
        return "decoding block by block" if way.blocks else ""

    @property
    def note(self) -> str:
        """For the user: how pictures are decoded, if not as a whole, and what would be faster."""
        text = self.text()
        how = f"{text[0].upper()}{text[1:]}. " if text else ""
        return f"{how}{self._small}".strip()

    def _by(self, way: Way, latent: Tensor) -> Tensor:
        def by_block(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
            def run(part: Tensor) -> Tensor:
                offload_streams_wait(part.device)
                with recomputed(way.blocks, self.vae.device, self._recomputers, self._again):
                    return call(part)

            return run

        if not way.tiles:
            return by_block(self._decode)(latent)
        if not way.head:
            return way.tiles(by_block(self._decode), latent)
        first = self._kept(partial(way.head.features, self._plain))
        rest = self._kept(partial(way.head.rest, self._plain, like=latent.detach()))
        return way.tiles.finer(way.head.ratio)(by_block(rest), latent, by_block(first))


def _single(tensor: Tensor) -> Tensor:
    """In fp32 at least."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def _output_map(process_output) -> tuple[float, float]:
    """The scale and shift of a VAE's `process_output`, read off where it does not clamp."""
    low, high = process_output(torch.tensor([0.25, 0.5])).tolist()
    scale = (high - low) / 0.25
    return scale, low - 0.25 * scale


class _Falling(torch.autograd.Function):
    """Decodes, and where memory runs out on the way back, decodes again in the next way."""

    @staticmethod
    def forward(ctx, decoder: Decoder, latent: Tensor) -> Tensor:
        ctx.decoder, ctx.latent = decoder, latent.detach()
        with torch.enable_grad():
            ctx.graph = decoder.attempt(ctx.latent.requires_grad_())
        return ctx.graph[0].detach()

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[None, Tensor]:
        while True:
            decoded, leaf = ctx.graph
            ctx.graph = None
            try:
                return None, torch.autograd.grad(decoded, leaf, gradient)[0]
            except management.OOM_EXCEPTION:
                if ctx.decoder.at_last():
                    raise
            del decoded, leaf
            ctx.decoder.fall(ctx.latent.shape)
            with torch.enable_grad():
                ctx.graph = ctx.decoder.attempt(ctx.latent)


class _ClampInwards(torch.autograd.Function):
    """Clamp to [0,1]; outside, only a gradient that leads back in passes (projected gradient).

    A plain clamp would never let go of a saturated pixel. Gradients are those of a reward, climbed.
    """

    @staticmethod
    def forward(ctx, image: Tensor) -> Tensor:
        ctx.save_for_backward(image)
        return image.clamp(0, 1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (image,) = ctx.saved_tensors
        outward = ((image < 0) & (gradient < 0)) | ((image > 1) & (gradient > 0))
        return gradient.masked_fill(outward, 0)

"""Latent to image with a gradient: `VAE.decode` clamps and may fall back to tiles without one."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class Decoder:
    """Decodes latents of the model's own space to (B,3,H,W) in [0,1].

    latent_out: the model's `process_latent_out`, from sampling space to the VAE's.
    """

    def __init__(self, vae, latent_out):
        self.vae, self._latent_out = vae, latent_out
        self._scale, self._shift = _output_map(vae.process_output)

    def __call__(self, latent: Tensor) -> Tensor:
        latent = self._latent_out(latent.float())
        if latent.ndim == 5 and self.vae.latent_dim == 2:
            latent = latent[:, :, 0]
        decoded = self.vae.first_stage_model.decode(latent.to(self.vae.device, self.vae.vae_dtype))
        image = decoded.float() * self._scale + self._shift
        if image.ndim == 5:  # one frame of a video VAE (Qwen-Image, Wan as an image model)
            image = image[:, :, 0]
        return _ClampInwards.apply(image[:, :3])


def _output_map(process_output) -> tuple[float, float]:
    """The scale and shift of a VAE's `process_output`, read off where it does not clamp."""
    low, high = process_output(torch.tensor([0.25, 0.5])).tolist()
    scale = (high - low) / 0.25
    return scale, low - 0.25 * scale


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

"""Pictures made worse on purpose: what the judge of quality learns to see."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import CLIPModel

from ..quality import FAULTS
from ..reward_model import SIDE as CLIP_SIDE
from ..vae import Decoder
from .contrastive import image_embed
from .precision import autocast

NONE = -1


def spoiled(
    picture: Tensor, fault: Tensor, network: CLIPModel, generator: torch.Generator
) -> Tensor:
    """Pictures (B, 3, S, S) with the fault of each, an index into FAULTS or ``NONE``."""
    picture = picture.clone()
    kinds = {"blurred": blurred, "saturated": saturated, "noisy": noisy}
    for name, spoil in kinds.items():
        chosen = (fault == FAULTS.index(name)).nonzero()[:, 0]
        if len(chosen):
            picture[chosen] = spoil(picture[chosen], generator)
    chosen = (fault == FAULTS.index("adversarial")).nonzero()[:, 0]
    if len(chosen):
        picture[chosen] = adversarial(picture[chosen], network, generator)
    return picture.clamp(0, 1)


def blurred(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Three box filters of 3 to 7 pixels, at least two thirds of the way."""
    width = 3 + 2 * int(torch.randint(3, (1,), generator=generator))
    soft = picture
    for _ in range(3):
        padded = F.pad(soft, (width // 2,) * 4, mode="replicate")
        soft = F.avg_pool2d(padded, width, 1)
    return torch.lerp(picture, soft, _between(0.67, 1, len(picture), generator))


def saturated(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Colours driven away from grey, and contrast up, until they clip."""
    grey = picture.mean(1, keepdim=True)
    vivid = grey + (picture - grey) * _between(2, 5, len(picture), generator)
    return (vivid - 0.5) * _between(1.1, 1.8, len(picture), generator) + 0.5


def noisy(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian noise, of single pixels or of patches of two to eight."""
    count, side = len(picture), picture.shape[-1]
    patch = 2 ** int(torch.randint(4, (1,), generator=generator))
    noise = torch.randn(count, 3, side // patch, side // patch, generator=generator)
    noise = F.interpolate(noise, size=(side, side), mode="bilinear", align_corners=False)
    return picture + noise * _between(0.06, 0.25, count, generator)


def adversarial(picture: Tensor, network: CLIPModel, generator: torch.Generator) -> Tensor:
    """A few signed steps towards a random direction in the embedding of the demo's CLIP."""
    count, steps = len(picture), 1 + int(torch.randint(3, (1,), generator=generator))
    towards = torch.randn(count, network.config.projection_dim, generator=generator)
    size = _between(0.02, 0.08, count, generator) / steps
    for _ in range(steps):
        picture = picture.detach().requires_grad_()
        small = F.interpolate(picture, (CLIP_SIDE, CLIP_SIDE), mode="area")
        (image_embed(network, small) * towards).sum().backward()
        picture = picture + size * picture.grad.sign()
    return picture.detach()


@torch.no_grad()
def melted(latent: Tensor, decoder: Decoder, generator: torch.Generator) -> Tensor:
    """Decoded from latents (B, 16, 16, 16) under noise, of single places or of patches."""
    count, side = len(latent), latent.shape[-1]
    patch = 2 ** int(torch.randint(3, (1,), generator=generator))
    noise = torch.randn(count, latent.shape[1], side // patch, side // patch, generator=generator)
    noise = noise.repeat_interleave(patch, 2).repeat_interleave(patch, 3)
    with autocast():
        picture = decoder(latent + noise * _between(0.35, 1.1, count, generator))
    return picture.float().clamp(0, 1)


def _between(low: float, high: float, count: int, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(count, 1, 1, 1, generator=generator)

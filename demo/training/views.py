"""Pictures for the contrastive training: rendered anew, and the demo checkpoint's own."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..mmdit import CHANNELS, GRID, PATCH, Denoiser
from ..reward_model import SIDE
from ..vae import Decoder
from ..vocabulary import BACKGROUNDS, COLOURS, CONCEPTS, prompt
from . import diffusion
from .captions import Captions
from .latents import LatentSet
from .pictures import NATURAL, Labels, Studio
from .precision import autocast
from .progress import say_progress

_BATCH = 32
_STEPS = 10
_SEED = 4
_FARTHEST = 3  # pixels by which a stored picture is moved


@dataclass(frozen=True)
class Pool:
    """Pictures (N, 3, SIDE, SIDE) as bytes, and what is in them."""

    pictures: Tensor
    labels: Labels

    def __len__(self) -> int:
        return len(self.pictures)


def shrink(picture: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 3, SIDE, SIDE), as rewards/models/preprocess.py does it."""
    size = (SIDE, SIDE)
    small = F.interpolate(picture, size, mode="bicubic", align_corners=False, antialias=True)
    return small.clamp(0, 1)


def decoded(data: LatentSet, decoder: Decoder, path: Path, count: int) -> Pool:
    """The first ``count`` training latents, decoded; read where that was done before."""
    if not path.exists():
        chosen = data.labels[:count]
        batches = (data.latents[i : i + _BATCH].float() for i in range(0, count, _BATCH))
        _save((_pixels(decoder, latent) for latent in batches), chosen, path)
    return _read(path)


def sampled(
    studio: Studio, network: Denoiser, decoder: Decoder, captions: Captions, path: Path, count: int
) -> Pool:
    """``count`` pictures that the checkpoint draws by prompts; read where that was done before."""
    if not path.exists():
        labels = studio.labels(count, torch.Generator().manual_seed(_SEED))
        _save(generate(network, decoder, captions, labels, _SEED), labels, path)
    return _read(path)


@torch.no_grad()
def generate(network: Denoiser, decoder: Decoder, captions: Captions, labels: Labels, seed: int):
    """Yields what the checkpoint draws for these labels, (<= _BATCH, 3, SIDE, SIDE) each."""
    side = GRID * PATCH
    generator = torch.Generator().manual_seed(seed)
    for start in range(0, len(labels), _BATCH):
        part = labels[start : start + _BATCH]
        noise = torch.randn(len(part), CHANNELS, side, side, generator=generator)
        tokens, empty = captions.tokens(plain_sentences(part)), captions.tokens([""])
        latent = diffusion.sample(network, tokens, empty, noise, steps=_STEPS)
        yield _pixels(decoder, latent)


def plain_sentences(labels: Labels) -> list[str]:
    """``a red cat on a blue background`` for every label."""
    columns = (labels.concept.tolist(), labels.colour.tolist(), labels.background.tolist())
    return [
        prompt(CONCEPTS[c], None if k == NATURAL else COLOURS[k - 1], BACKGROUNDS[g])
        for c, k, g in zip(*columns, strict=True)
    ]


def drawn(pool: Pool, count: int, generator: torch.Generator) -> tuple[Tensor, Labels]:
    """Some of the pool's pictures, mirrored and moved."""
    chosen = torch.randint(len(pool), (count,), generator=generator)
    picture = pool.pictures[chosen].float() / 255
    flipped = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    picture = torch.where(flipped, picture.flip(3), picture)
    padded = F.pad(picture, (_FARTHEST,) * 4, mode="replicate")
    corner = torch.randint(2 * _FARTHEST + 1, (2,), generator=generator).tolist()
    top, left = corner
    return padded[:, :, top : top + SIDE, left : left + SIDE], pool.labels[chosen]


def rendered(studio: Studio, labels: Labels, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """New pictures, and which of them keep their true colours (B,).

    Half are training pictures in more sizes and places. The others are relit: the subject tinted
    and dimmed, on a ground of any colour, on a ramp between two or on noise.
    """
    count = len(labels)
    icons = F.avg_pool2d(studio.place(labels, generator, largest=0.98, shift=0.3), 128 // SIDE)
    ground = studio.grounds(labels, generator)
    relit = torch.rand(count, 1, 1, 1, generator=generator) < 0.5
    tint = _between(0.3, 1, (count, 1, 1, 1), generator)
    tint = tint * _between(0.7, 1, (count, 3, 1, 1), generator)
    subject = torch.where(relit, icons[:, :3] * tint, icons[:, :3])
    behind = torch.where(relit, _anywhere(count, generator), ground)
    return subject + behind * (1 - icons[:, 3:]), ~relit.flatten()


def _anywhere(count: int, generator: torch.Generator) -> Tensor:
    """Smooth random grounds (count, 3, SIDE, SIDE)."""
    corners = torch.rand(count, 3, 3, 3, generator=generator)
    smooth = F.interpolate(corners, (SIDE, SIDE), mode="bilinear", align_corners=True)
    even = corners[:, :, :1, :1]
    return torch.lerp(even, smooth, torch.rand(count, 1, 1, 1, generator=generator))


def worsen(picture: Tensor, generator: torch.Generator) -> Tensor:
    """Light changes of tone, then blur and noise of random strength."""
    count = len(picture)
    contrast = _between(0.8, 1.15, (count, 1, 1, 1), generator)
    lift = _between(-0.06, 0.06, (count, 1, 1, 1), generator)
    picture = (picture - 0.5) * contrast + 0.5 + lift
    padded = F.pad(picture, (2, 2, 2, 2), mode="replicate")
    blurred = F.avg_pool2d(F.avg_pool2d(padded, 3, 1), 3, 1)
    picture = torch.lerp(picture, blurred, _between(-1, 1, (count, 1, 1, 1), generator).relu())
    noise = torch.randn(picture.shape, generator=generator)
    level = 0.15 * _between(-1, 1, (count, 1, 1, 1), generator).relu()
    return (picture + level * noise).clamp(0, 1)


def _pixels(decoder: Decoder, latent: Tensor) -> Tensor:
    with torch.inference_mode(), autocast():
        picture = decoder(latent.contiguous(memory_format=torch.channels_last))
    return shrink(picture.float().clamp(0, 1))


def _save(batches, labels: Labels, path: Path) -> None:
    pictures = torch.cat(
        [(batch * 255).round().byte() for batch in say_progress(batches, path.stem)]
    )
    columns = torch.stack([labels.concept, labels.colour, labels.background])
    temporary = path.with_suffix(".tmp")
    torch.save({"pictures": pictures, "labels": columns}, temporary)
    os.replace(temporary, path)


def _read(path: Path) -> Pool:
    found = torch.load(path, weights_only=True)
    return Pool(found["pictures"], Labels(*found["labels"]))


def _between(low: float, high: float, shape: tuple, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)

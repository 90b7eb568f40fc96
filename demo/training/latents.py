"""The training set of the denoiser: pictures encoded once, with their labels."""

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..mmdit import CHANNELS, GRID, PATCH
from ..vae import Encoder
from .pictures import Labels, Studio

_BATCH = 16
_SEED = 3


@dataclass(frozen=True)
class LatentSet:
    """Latents (N, 16, 16, 16) in half precision, and what is in them."""

    latents: Tensor
    labels: Labels

    def __len__(self) -> int:
        return len(self.latents)


def encode(studio: Studio, encoder: Encoder, path: Path, count: int) -> LatentSet:
    """Draw and encode ``count`` pictures, or read them where that was done before."""
    if not path.exists():
        generator = torch.Generator().manual_seed(_SEED)
        labels = studio.labels(count, generator)
        side = GRID * PATCH
        latents = torch.empty(count, CHANNELS, side, side, dtype=torch.float16)
        for start in range(0, count, _BATCH):
            batch = labels[start : start + _BATCH]
            pictures = studio.draw(batch, generator).contiguous(memory_format=torch.channels_last)
            with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
                latents[start : start + _BATCH] = encoder(pictures).half()
        columns = torch.stack([labels.concept, labels.colour, labels.background])
        temporary = path.with_suffix(".tmp")
        torch.save({"latents": latents, "labels": columns}, temporary)
        os.replace(temporary, path)
    stored = torch.load(path, weights_only=True)
    return LatentSet(stored["latents"], Labels(*stored["labels"]))

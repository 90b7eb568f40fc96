"""The training set of the denoiser: pictures encoded once, with their labels."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from ..mmdit import CHANNELS, GRID, PATCH
from ..vae import Encoder
from .captions import Captions
from .pictures import Labels, Studio
from .precision import autocast

HELD_OUT = 240
_BATCH = 16
_SEED = 3


class Data(Protocol):
    """What the denoiser is trained on."""

    def batch(self, step: int, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Latents (count, 16, 16, 16), and a sentence for each."""
        ...

    def held_out(self, count: int) -> list[tuple[Tensor, list[str]]]:
        """Batches of that size which no step sees, the same ones each time."""
        ...


@dataclass(frozen=True)
class LatentSet:
    """Latents (N, 16, 16, 16) in half precision, and what is in them."""

    latents: Tensor
    labels: Labels

    def __len__(self) -> int:
        return len(self.latents)


class Captioned:
    """A ``LatentSet`` as the denoiser's training wants it."""

    def __init__(self, data: LatentSet, captions: Captions) -> None:
        self._data, self._captions = data, captions

    def batch(self, step: int, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Random latents, and a sentence for each."""
        chosen = torch.randint(len(self._data) - HELD_OUT, (count,), generator=generator)
        sentences = self._captions.sentences(self._data.labels[chosen], generator)
        return self._data.latents[chosen].float(), sentences

    def held_out(self, count: int) -> list[tuple[Tensor, list[str]]]:
        """Batches that no step sees, always with the same sentences."""
        generator = torch.Generator().manual_seed(1)
        batches = []
        for start in range(len(self._data) - HELD_OUT, len(self._data), count):
            part = slice(start, start + count)
            sentences = self._captions.sentences(self._data.labels[part], generator)
            batches.append((self._data.latents[part].float(), sentences))
        return batches


class Mixed:
    """Of every batch a share from one set of pictures, the rest from another."""

    def __init__(self, first: Data, second: Data, share: float) -> None:
        self._first, self._second, self._share = first, second, share

    def batch(self, step: int, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Random latents, and a sentence for each."""
        some = round(self._share * count)
        latents, sentences = self._first.batch(step, some, generator)
        others, more = self._second.batch(step, count - some, generator)
        return torch.cat([latents, others]), sentences + more

    def held_out(self, count: int) -> list[tuple[Tensor, list[str]]]:
        """Batches of either that no step sees."""
        return self._first.held_out(count) + self._second.held_out(count)


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
            with torch.inference_mode(), autocast():
                latents[start : start + _BATCH] = encoder(pictures).half()
        columns = torch.stack([labels.concept, labels.colour, labels.background])
        temporary = path.with_suffix(".tmp")
        torch.save({"latents": latents, "labels": columns}, temporary)
        os.replace(temporary, path)
    stored = torch.load(path, weights_only=True)
    return LatentSet(stored["latents"], Labels(*stored["labels"]))

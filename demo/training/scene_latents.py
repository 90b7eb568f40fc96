"""The training set of rich pictures: drawn and encoded piece by piece while the training goes."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from torch import Tensor

from ..mmdit import CHANNELS, GRID, PATCH
from ..vae import Encoder
from .precision import autocast
from .scene_captions import scene_sentences
from .scenes import Scenes, random_scenes
from .stage import Stage

PIECE = 1024
"""Pictures that are drawn and encoded at a time."""
AT_FIRST, STEPS_A_PIECE = 4, 80
"""Pieces there are before the first step, and steps until the next one is added."""
HELD_OUT = 480
_BATCH = 16
_SEED = 7_000_000


class SceneLatents:
    """Latents (N, 16, 16, 16) and what is in them; N grows with the steps up to ``pieces``.

    Which pictures a step may see depends on its number alone, so an interrupted training goes on
    as if it had not been interrupted.
    """

    def __init__(self, stage: Stage, encoder: Encoder, directory: Path, pieces: int) -> None:
        self._stage, self._encoder, self._directory, self._most = stage, encoder, directory, pieces
        self._pieces: list[tuple[Tensor, Scenes]] = []
        directory.mkdir(parents=True, exist_ok=True)

    def batch(self, step: int, count: int, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """Random latents, and a sentence for each."""
        pieces = min(self._most, AT_FIRST + step // STEPS_A_PIECE)
        while len(self._pieces) < pieces:
            self._pieces.append(self._piece(len(self._pieces), PIECE))
        chosen = torch.randint(pieces * PIECE, (count,), generator=generator)
        parts = [(self._pieces[i // PIECE], i % PIECE) for i in chosen.tolist()]
        latents = torch.stack([latents[i] for (latents, _), i in parts]).float()
        scenes = Scenes.cat([scenes[i : i + 1] for (_, scenes), i in parts])
        return latents, scene_sentences(scenes, generator)

    def held_out(self, count: int) -> list[tuple[Tensor, list[str]]]:
        """Batches that no step sees, always with the same sentences."""
        latents, scenes = self._piece(-1, HELD_OUT)
        generator = torch.Generator().manual_seed(1)
        return [
            (latents[i : i + count].float(), scene_sentences(scenes[i : i + count], generator))
            for i in range(0, HELD_OUT, count)
        ]

    def _piece(self, index: int, count: int) -> tuple[Tensor, Scenes]:
        """Drawn and encoded, or read where that was done before."""
        path = self._directory / ("held_out.pt" if index < 0 else f"{index:03d}.pt")
        if not path.exists():
            generator = torch.Generator().manual_seed(_SEED + index)
            scenes = random_scenes(self._stage.studio, count, generator)
            temporary = path.with_suffix(".tmp")
            latents = self._encoded(scenes, generator)
            torch.save({"latents": latents, "scenes": scenes.columns()}, temporary)
            os.replace(temporary, path)
        stored = torch.load(path, weights_only=True)
        return stored["latents"], Scenes(**stored["scenes"])

    def _encoded(self, scenes: Scenes, generator: torch.Generator) -> Tensor:
        side = GRID * PATCH
        latents = torch.empty(len(scenes), CHANNELS, side, side, dtype=torch.float16)
        for start in range(0, len(scenes), _BATCH):
            pictures = self._stage.draw(scenes[start : start + _BATCH], generator)
            pictures = pictures.contiguous(memory_format=torch.channels_last)
            with torch.inference_mode(), autocast():
                latents[start : start + _BATCH] = self._encoder(pictures).half()
        return latents

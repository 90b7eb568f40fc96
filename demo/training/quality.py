"""Train the judge of quality on clean and spoiled pictures from three sources."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from .. import reward_model
from ..mmdit import CHANNELS, GRID, PATCH, Denoiser
from ..quality import FAULTS, Quality
from ..vae import Decoder, Encoder
from ..weights import Weights
from . import diffusion
from .captions import Captions
from .faults import NONE, melted, spoiled
from .fitting import fit
from .precision import autocast
from .progress import say_progress
from .scene_captions import scene_sentences
from .scenes import random_scenes
from .stage import Stage
from .views import plain_sentences

SESSION = "quality.session"
BATCH = 48
HELD_OUT = 96
"""Pictures of each pool that are only measured on."""
_SEED, _PART, _STEPS = 8_000_000, 16, 10
_MELTED = FAULTS.index("melted")


@dataclass(frozen=True)
class Pools:
    """Pictures (N, 3, 128, 128) as bytes: through the autoencoder, generated, melted."""

    decoded: Tensor
    generated: Tensor
    melted: Tensor

    def part(self, held_out: bool) -> Pools:
        """Those to measure on, or those to train on."""
        chosen = slice(-HELD_OUT, None) if held_out else slice(None, -HELD_OUT)
        return Pools(self.decoded[chosen], self.generated[chosen], self.melted[chosen])


def pools(stage: Stage, weights: Weights, captions: Captions, directory: Path, count: int) -> Pools:
    """``count`` pictures of each kind by the stored checkpoint; read where that was done before.

    captions: with the words of these weights.
    """
    path = directory / "quality_pools.pt"
    if not path.exists():
        parts = [
            _part(stage, weights, captions, _SEED + start)
            for start in say_progress(range(0, count, _PART), "quality pools", every=8)
        ]
        columns = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        temporary = path.with_suffix(".tmp")
        torch.save(columns, temporary)
        os.replace(temporary, path)
    return Pools(**torch.load(path, weights_only=True))


@torch.no_grad()
def _part(stage: Stage, weights: Weights, captions: Captions, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    encoder, decoder = Encoder().eval(), Decoder().eval()
    encoder.load_state_dict(weights.encoder)
    decoder.load_state_dict(weights.decoder)
    scenes = random_scenes(stage.studio, _PART, generator)
    with autocast():
        latent = encoder(stage.draw(scenes, generator)).float()
        decoded = decoder(latent).float()
    network = Denoiser(len(captions.identifiers) + 1).eval()
    network.load_state_dict(weights.denoiser)
    half = _PART // 2
    sentences = plain_sentences(stage.studio.labels(half, generator))
    sentences += scene_sentences(scenes[half:], generator)
    noise = torch.randn(_PART, CHANNELS, GRID * PATCH, GRID * PATCH, generator=generator)
    tokens, empty = captions.tokens(sentences), captions.tokens([""])
    drawn = diffusion.sample(network, tokens, empty, noise, steps=_STEPS)
    mixed = torch.where(torch.rand(_PART, 1, 1, 1, generator=generator) < 0.5, latent, drawn)
    with autocast():
        generated = decoder(drawn).float()
    pictures = {"decoded": decoded, "generated": generated}
    pictures["melted"] = melted(mixed, decoder, generator)
    return {name: (p.clamp(0, 1) * 255).round().byte() for name, p in pictures.items()}


def batch(
    stage: Stage, pool: Pools, network, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures, the fault of each (an index, or ``NONE``) and whether it was generated."""
    scenes = random_scenes(stage.studio, BATCH, generator)
    picture = stage.draw(scenes, generator)
    source = torch.randint(4, (BATCH,), generator=generator)  # half rendered, decoded, generated
    fault = torch.randint(len(FAULTS), (BATCH,), generator=generator)
    fault = torch.where(torch.rand(BATCH, generator=generator) < 0.4, NONE, fault)
    for name, chosen in (
        ("decoded", source == 2), ("generated", source == 3), ("melted", fault == _MELTED),
    ):  # fmt: skip
        held = getattr(pool, name)
        index = torch.randint(len(held), (BATCH,), generator=generator)
        picture = torch.where(chosen[:, None, None, None], held[index].float() / 255, picture)
    flipped = torch.rand(BATCH, 1, 1, 1, generator=generator) < 0.5
    picture = torch.where(flipped, picture.flip(3), picture)
    return spoiled(picture, fault, network, generator), fault, source == 3


def loss_of(network: Quality, picture: Tensor, fault: Tensor, generated: Tensor) -> Tensor:
    """Cross entropies of every fault, and of the source of clean pictures."""
    with autocast():
        logits = network(picture).float()
    wanted = (fault[:, None] == torch.arange(len(FAULTS))).float()
    loss = F.binary_cross_entropy_with_logits(logits[:, :-1], wanted) * 4
    clean = fault == NONE
    return loss + F.binary_cross_entropy_with_logits(logits[clean, -1], generated[clean].float())


def train(stage: Stage, pool: Pools, directory: Path, minutes: float) -> Quality:
    """The trained judge; resumes by itself."""
    torch.manual_seed(0)
    network = Quality()
    clip, _ = reward_model.stored()
    seen = pool.part(held_out=False)

    def loss_at(step: int) -> Tensor:
        generator = torch.Generator().manual_seed(_SEED + 1_000_000 + step)
        picture, fault, generated = batch(stage, seen, clip, generator)
        picture = picture.contiguous(memory_format=torch.channels_last)
        return loss_of(network, picture, fault, generated)

    return fit(network, loss_at, directory / SESSION, minutes)


def accuracy(network: Quality, stage: Stage, pool: Pools, batches: int = 16) -> dict[str, float]:
    """On pictures held out: areas under the curve, and clean or not at a probability of 0.5."""
    clip, _ = reward_model.stored()
    generator, unseen = torch.Generator().manual_seed(9), pool.part(held_out=True)
    logits, faults, sources, clean = [], [], [], []
    for _ in range(batches):
        picture, fault, generated = batch(stage, unseen, clip, generator)
        with torch.no_grad():
            logits.append(network(picture))
            clean.append(network.clean(picture))
        faults.append(fault)
        sources.append(generated)
    score, fault, source = torch.cat(logits), torch.cat(faults), torch.cat(sources)
    sound, quality = fault == NONE, torch.cat(clean)
    figures = {
        f"AUC {name}": area(score[:, i][sound | (fault == i)], (fault == i)[sound | (fault == i)])
        for i, name in enumerate(FAULTS)
    }
    figures["AUC clean"] = area(quality, sound)
    figures["clean or not"] = ((quality > 0.5) == sound).float().mean().item()
    return figures | {"AUC generated": area(score[sound, -1], source[sound])}


def area(score: Tensor, positive: Tensor) -> float:
    """Area under the receiver's curve: the chance that a positive scores above a negative."""
    above = score[positive][:, None] - score[~positive]
    return ((above > 0).float() + 0.5 * (above == 0)).mean().item()

"""How Gaussian a noise is, in words."""

from __future__ import annotations

import torch

from ..dno.fresh import fresh
from ..dno.noise import Noise
from ..regularizers import Probability, Spectrum

TRIES = 100  # fresh noises that a verdict compares with


def verdict(noise: Noise) -> tuple[str, float]:
    """How Gaussian, in words; and the lowest P(z)."""
    if not all(t.isfinite().all() for t in noise.tensors()):
        return "Broken: it holds NaN or infinity.", 0.0
    spectrum, lines = Spectrum(), []
    probability = Probability().indicator(noise)
    deviation = spectrum.indicator(noise)
    usual = torch.stack([spectrum.indicator(fresh(noise, 1, index)) for index in range(TRIES)])
    rank = (usual >= deviation).float().mean(0)  # share of fresh noises that stray as far
    for image, numbers in enumerate(zip(probability.tolist(), rank.tolist(), strict=True)):
        every = torch.cat([t[image].flatten() for t in noise.tensors()]).double()
        lines.append(
            f"Image {image}: {_word(*numbers)} P(z) {numbers[0]:.2g}, mean {every.mean():.3f}, "
            f"standard deviation {every.std():.3f}, spectral deviation {deviation[image]:.1f} "
            f"(fresh noise: {usual[:, image].median():.1f}, {numbers[1]:.0%} of it this far)."
        )
    return "\n".join(lines), float(probability.min())


def _word(probability: float, rank: float) -> str:
    if probability < 1e-3:
        return "Not Gaussian: its mean and variance are off."
    if rank == 0:
        return "Not white: a layout hides in its frequencies."
    if probability < 0.05 or rank < 0.02:
        return "Nearly Gaussian: a little off."
    return "Gaussian: nothing that fresh noise would not show."

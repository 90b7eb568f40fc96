"""The power spectrum of noise as a picture: what is there beside what fresh noise has."""

from __future__ import annotations

import torch
from PIL import Image

from ...dno.noise import Noise
from ...dno.rings import as_channels, ring_power, rings
from .canvas import Scale
from .chart import Curve, Panel, draw
from .plot import HEALTH, REWARD, TERMS

COLOURS = (REWARD, *TERMS)
IMAGES = 8  # of a batch get a line of their own


def spectrum_plot(noise: Noise, width: int, height: int) -> Image.Image:
    """Mean power of each ring of frequencies, over channels and draws, one line per image.

    White noise of variance 1 lies at 1; between the dashed lines where two sigma of it do.
    """
    power, spread = ring_powers(noise)
    powers = power[:IMAGES].tolist()
    bounds = (1 - 2 * spread).clamp(min=0).tolist(), (1 + 2 * spread).tolist()
    scale = Scale.around([0.0, *bounds[1], *(value for row in powers for value in row)])
    curves = [
        Curve(f"image {index}" if len(powers) > 1 else "power", colour, row, scale, 2.2)
        for index, (row, colour) in enumerate(zip(powers, COLOURS, strict=False))
    ]
    for bound, legend in zip(bounds, ("white noise, two sigma", ""), strict=True):
        curves.append(Curve(legend, HEALTH[0], bound, scale, 1.6, dashed=True))
    steps = list(range(len(powers[0])))
    return draw(Panel(curves, scale), None, steps, width, height, axis="frequency")


def ring_powers(noise: Noise) -> tuple[torch.Tensor, torch.Tensor]:
    """(B,rings) mean power, and the standard deviation (rings) that white noise's has."""
    powers, count = [], 0
    for tensor in noise.tensors():
        if tensor.shape[-2:] != noise.initial.shape[-2:]:
            continue  # a draw that is no picture has other frequencies
        channels = as_channels(tensor.detach())
        count += channels.shape[1]
        spectrum = torch.fft.rfft2(channels, norm="ortho")
        powers.append(ring_power(spectrum, channels.shape[-2:]))
    _, spread = rings(*noise.initial.shape[-2:])
    return torch.cat(powers, 1).mean(1), spread / count**0.5

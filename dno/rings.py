"""The power spectrum of noise, averaged over rings of equal frequency."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=8)
def rings(height: int, width: int) -> tuple[Tensor, Tensor]:
    """(H (W/2+1), rings) weights that average rfft2's coefficients, and sqrt(2/N) of each ring.

    N is the ring's number of independent real numbers: for white noise of variance 1 the averaged
    power has mean 1 and standard deviation sqrt(2/N). Frequencies are in cycles per pixel, so rings
    are round on pictures that are not square.

    A matrix product, because a scatter's order of summation changes from run to run on a GPU.
    """
    with torch.inference_mode(False):
        y = torch.fft.fftfreq(height, dtype=torch.float64)[:, None]
        x = torch.fft.rfftfreq(width, dtype=torch.float64)
        ring = (torch.hypot(y, x) * max(height, width)).round().long().flatten()
        mirrored = (torch.arange(len(x)) > 0) & (2 * torch.arange(len(x)) < width)
        copies = (1 + mirrored.double()).expand(height, -1).flatten()
        members = torch.zeros(len(ring), int(ring.max()) + 1, dtype=torch.float64)
        members[torch.arange(len(ring)), ring] = copies
        members = members[:, members.sum(0) > 0]
        size = members.sum(0)
        return (members / size).float(), (2 / size).sqrt().float()


def as_channels(tensor: Tensor) -> Tensor:
    """(B,C,H,W) or (B,C,T,H,W) -> (B,channels,H,W) in fp32 or better; frames are channels."""
    wide = tensor.to(torch.promote_types(tensor.dtype, torch.float32))
    return wide.reshape(len(tensor), -1, *tensor.shape[-2:])


def ring_power(spectrum: Tensor, size: torch.Size | tuple[int, int]) -> Tensor:
    """rfft2's coefficients (B,C,H,W/2+1) -> the mean power of each ring, (B,C,rings)."""
    average, _ = rings(*size)
    return spectrum.abs().square().flatten(2) @ average.to(spectrum.device, spectrum.real.dtype)


def scale_rings(tensor: Tensor, factors: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`tensor` with each ring of each channel times `factors(power, spread)`, (B,C,rings)."""
    channels = as_channels(tensor)
    size = channels.shape[-2:]
    average, spread = rings(*size)
    spectrum = torch.fft.rfft2(channels, norm="ortho")
    factor = factors(ring_power(spectrum, size), spread.to(channels))
    member = (average > 0).to(channels)
    spread_out = (factor @ member.T).unflatten(-1, spectrum.shape[-2:])
    scaled = torch.fft.irfft2(spectrum * spread_out, s=size, norm="ortho")
    return scaled.reshape(tensor.shape).to(tensor.dtype)

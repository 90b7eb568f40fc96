from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Range
from ..dno.noise import Noise
from ..dno.objective import Regularizer
from ..dno.rings import as_channels, ring_power, rings

_SCALE = 10.0


@dataclass(frozen=True)
class Spectrum(Regularizer):
    """Keeps the noise white, so that the picture's subject stays whole.

    Optimised noise hides a layout in its low frequencies, where the paper's probability test cannot
    see it. Here the power spectrum of every channel of every noise tensor is averaged over rings of
    equal frequency; for a standard normal the N coefficients of a ring (conjugates counted, as many
    as it has independent real numbers) give exactly a chi-squared variable of N degrees, so
        s = (mean power - 1) sqrt(N / 2)
    has mean 0 and variance 1. Score: -10 times the mean of max(|s| - tolerance, 0)^2 over tensors,
    channels and rings; exactly 0, with gradient exactly 0, where every |s| is within the tolerance.

    Why the mean: outside the tolerance one ring's term has a gradient of norm sqrt(8) (|s| -
    tolerance) whatever the ring's size. A reward's gradient per ring falls with the number of
    tensors, channels and rings, and so does the mean's: one weight suits a 16 x 16 latent and
    SDXL's, one step and twenty. At 8 tensors of 16 x 16 x 16 weight 1 is 0.0065 of the plain sum.

    Frames of a video (B,C,T,H,W) count as channels. Frequencies are in cycles per pixel, so rings
    are round on pictures that are not square. Related: power spectrum and moments, arXiv
    2509.07027.

    >>> fresh, flat = Noise(torch.randn(1, 4, 16, 16)), Noise(torch.ones(1, 4, 16, 16))
    >>> Spectrum()(fresh) > Spectrum()(flat)
    tensor([True])
    """

    aliases = ("white noise", "natural", "keep the subject", "protect", "frequency")
    keeps = "the noise's power spectrum white"
    source = "ours; related: arXiv 2509.07027"

    tolerance: Annotated[
        float,
        Range(
            0.0, 10.0, step=0.1, help="Deviations of the spectrum up to this many sigma are free."
        ),
    ] = 1.5

    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,), 0 or less."""
        total, count = noise.initial.new_zeros(noise.initial.shape[0], dtype=torch.float32), 0
        for deviation in _deviations(noise):
            excess = (deviation.abs() - self.tolerance).clamp(min=0)
            total = total + excess.square().sum(dim=(1, 2))
            count += deviation[0].numel()
        return -_SCALE / max(count, 1) * total

    @torch.no_grad()
    def indicator(self, noise: Noise) -> Tensor:
        """The worst |s| of any ring, (B,): about 4 to 7 for Gaussian noise, 50 when hacked."""
        worst = [deviation.abs().amax(dim=(1, 2)) for deviation in _deviations(noise)]
        return torch.stack([noise.initial.new_zeros(noise.initial.shape[0]).float(), *worst]).amax(
            0
        )


def _deviations(noise: Noise) -> Iterator[Tensor]:
    """s of each optimised tensor, (B,channels,rings), in fp32 or better."""
    for leaf in noise.leaves():
        channels = as_channels(leaf)
        size = channels.shape[-2:]
        power = ring_power(torch.fft.rfft2(channels, norm="ortho"), size)
        yield (power - 1) / rings(*size)[1].to(power)

"""Spectrum against a full fft2 in numpy, its statistics on Gaussian noise, and its scaling."""

import numpy as np
import pytest
import torch

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.regularizers import Spectrum
from ComfyUI_DNO.regularizers.spectrum import _deviations

from ..support.examples import gaussian, gradients


def rings(height, width):
    """Ring of each coefficient of fft2, in numpy."""
    y, x = np.fft.fftfreq(height)[:, None], np.fft.fftfreq(width)
    return np.rint(np.hypot(y, x) * max(height, width)).astype(int)


@pytest.mark.parametrize(
    "size", [(16, 16), (9, 16), (8, 32), (7, 5), (1, 8), (8, 1), (1, 1)], ids=str
)
def test_agrees_with_a_full_transform_in_numpy(size):
    noise = gaussian(1, 2, *size, scale=1.3)
    excess = []
    for channel in noise.initial[0].detach().double().numpy():
        power, ring = np.abs(np.fft.fft2(channel, norm="ortho")) ** 2, rings(*size)
        for q in np.unique(ring):
            members = power[ring == q]
            s = (members.mean() - 1) * np.sqrt(len(members) / 2)
            excess.append(max(abs(s) - 1.5, 0) ** 2)
    assert Spectrum()(noise).item() == pytest.approx(-10 * np.mean(excess), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("size", [(16, 16), (9, 12), (1, 8)], ids=str)
def test_each_ring_of_gaussian_noise_has_mean_0_and_variance_1(size):
    (deviation,) = _deviations(gaussian(1000, 4, *size))
    count = 4000
    assert deviation.mean((0, 1)).abs().max() < 5 / count**0.5
    # the variance of s^2 of a chi-squared with one degree is 56
    assert (deviation.var((0, 1)) - 1).abs().max() < 5 * (56 / count) ** 0.5


def test_inside_the_tolerance_score_and_gradient_are_exactly_zero():
    spectrum = torch.fft.fft2(gaussian(1, 4, 16, 16).initial.detach(), norm="ortho")
    flat = torch.fft.ifft2(spectrum / spectrum.abs(), norm="ortho").real
    noise = Noise(flat, [flat.flip(-1)])
    assert Spectrum()(noise).item() == 0
    assert all(slope.abs().max().item() == 0 for slope in gradients(Spectrum(), noise))
    assert Spectrum().indicator(noise).item() < 1e-4


def test_a_layout_in_low_frequencies_is_seen():
    noise = gaussian(2, 4, 32, 32)
    hacked = noise.initial.detach().clone()
    hacked[0, :, :, 16:] += 0.5
    worst = Spectrum().indicator(Noise(hacked))
    assert worst[0] > 20 > 8 > worst[1]
    assert Spectrum()(Noise(hacked))[0] < 20 * Spectrum()(noise)[0]


def test_the_worst_deviation_is_that_of_the_hacked_tensor_only():
    noise = gaussian(1, 4, 16, 16, count=3)
    noise.injected[1].data.add_(1)
    assert Spectrum().indicator(noise) == Spectrum().indicator(Noise(noise.injected[1]))


SIZES = [(1, 16, 16), (8, 16, 16), (20, 16, 16), (1, 4, 128), (20, 4, 64)]


def equilibrium(slope, count, channels, size):
    """s of the lowest ring where a reward of `slope` per unit of the mean balances weight 1."""
    base = gaussian(1, channels, size, size, count=count)
    means = torch.stack([leaf.detach().mean((2, 3), keepdim=True) for leaf in base.leaves()])
    zero = [leaf.detach() - mean for leaf, mean in zip(base.leaves(), means, strict=True)]
    scored = []
    with torch.no_grad():
        rest = Spectrum()(Noise(zero[0], zero[1:])).item()
        for amplitude in np.linspace(1, 4, 61):  # of the zero frequency, in sigma
            shift = amplitude / size
            noise = Noise(zero[0] + shift, [draw + shift for draw in zero[1:]])
            scored.append(
                (slope * shift + Spectrum()(noise).item() - rest, (amplitude**2 - 1) / 2**0.5)
            )
    return max(scored)[1]


@pytest.mark.parametrize("slope", [3, 30])
def test_one_weight_stops_the_same_layout_at_every_size(slope):
    strengths = [equilibrium(slope, *size) for size in SIZES]
    assert max(strengths) < 5
    assert max(strengths) - min(strengths) < 0.35


def test_a_mean_over_rings_keeps_value_and_gradient_in_scale():
    scores = {
        size: Spectrum()(gaussian(1, *size[1:], size[2], count=size[0])).item() for size in SIZES
    }
    assert all(-2 < score < -0.2 for score in scores.values())
    norms = []
    for count, channels, size in SIZES:
        noise = gaussian(1, channels, size, size, count=count, shift=2 / size)
        slopes = torch.cat([slope.flatten() for slope in gradients(Spectrum(), noise)])
        # that of a reward of the mean is 1 / sqrt(n)
        norms.append(slopes.norm().item() * len(slopes) ** 0.5)
    assert max(norms) / min(norms) < 1.5


def test_nothing_to_optimise_scores_nothing():
    noise = Noise(torch.randn(2, 4, 8, 8), scope="injected")
    assert Spectrum()(noise).tolist() == [0, 0]
    assert Spectrum().indicator(noise).tolist() == [0, 0]

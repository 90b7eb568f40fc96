"""The norm regularizer against the chi distribution and ReNO's own formula."""

import math

import pytest
import torch

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.regularizers import Norm

from ..support.examples import gaussian


def test_is_the_log_density_of_the_chi_distribution_up_to_a_constant():
    noises = [gaussian(2, 4, 8, 8, count=2, scale=scale, dtype=torch.float64) for scale in (1, 1.2)]
    n = 2 * 4 * 8 * 8

    def density(noise):
        r = torch.cat([leaf.flatten(1) for leaf in noise.leaves()], 1).norm(dim=1)
        constant = (n / 2 - 1) * math.log(2) + math.lgamma(n / 2)
        return (n - 1) * r.log() - r.square() / 2 - constant

    expected = density(noises[1]) - density(noises[0])
    torch.testing.assert_close(Norm()(noises[1]) - Norm()(noises[0]), expected)


def test_pulls_as_reno_does():
    noise = gaussian(1, 4, 16, 16, scale=1.1, dtype=torch.float64)
    (ours,) = torch.autograd.grad(Norm()(noise).sum(), noise.leaves())
    z = noise.initial.detach().requires_grad_()
    length = torch.linalg.vector_norm(z)
    (theirs,) = torch.autograd.grad((z.numel() - 1) * length.log() - length.square() / 2, z)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", [(4, 16, 16), (16, 64, 64)], ids=str)
def test_fresh_noise_has_half_a_nat_and_length_one(shape):
    fresh = gaussian(20, *shape)
    assert -1.5 < Norm()(fresh).mean() < -0.2
    torch.testing.assert_close(Norm().indicator(fresh).mean().item(), 1.0, rtol=0.01, atol=0)


def test_the_best_length_scores_zero():
    z = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    at_best = Noise(z * math.sqrt(255) / z.norm())
    assert abs(Norm()(at_best).item()) < 1e-9
    assert Norm()(Noise(at_best.initial * 1.01)) < 0 > Norm()(Noise(at_best.initial * 0.99))

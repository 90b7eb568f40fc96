"""Projections against their definitions, the closed form of WGNC against its optimality."""

import math

import pytest
import torch

from ComfyUI_DNO.dno.block_norms import BlockNorms
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.projections import Sphere, TypicalSet, Whitened, rotated
from ComfyUI_DNO.dno.rings import as_channels, ring_power, rings
from ComfyUI_DNO.regularizers import Spectrum

from ..support.examples import gaussian

EVERY = [TypicalSet(), Whitened(), BlockNorms(), Sphere()]
SHAPES = [(2, 4, 16, 16), (2, 3, 9, 16), (2, 4, 2, 8, 12)]


def draws(*shape, seed=0, scale=1.0):
    return scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def deviations(tensor):
    size = as_channels(tensor).shape[-2:]
    power = ring_power(torch.fft.rfft2(as_channels(tensor), norm="ortho"), size)
    return (power - 1) / rings(*size)[1]


@pytest.mark.parametrize("projection", EVERY, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_image_by_itself_and_the_given_left_alone(projection, shape):
    given = [draws(*shape, seed=s, scale=3.0) for s in range(2)]
    before = [t.clone() for t in given]
    both = projection(given)
    alone = projection([t[1:] for t in given])
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    assert [t.shape for t in both] == [t.shape for t in given]
    for together, single in zip(both, alone, strict=True):
        torch.testing.assert_close(together[1:], single, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_typical_set_holds_the_spectrum_and_the_moments(shape):
    ramp = torch.linspace(-3, 3, shape[-1])
    (kept,) = TypicalSet()([draws(*shape) + ramp])
    assert deviations(draws(*shape) + ramp).abs().max() > 10
    assert deviations(kept).abs().max() < 2.0  # 1.5, and what the moments move
    assert kept.flatten(1).mean(1).abs().max() < 1e-5
    torch.testing.assert_close(kept.flatten(1).square().mean(1), torch.ones(2), rtol=1e-4, atol=0)


def test_the_clamp_is_the_nearest_such_noise_and_keeps_phases():
    """Scaling a ring is its projection on a sphere: no phase changes, and rings inside stay."""
    noise = draws(1, 1, 16, 16)
    moved = TypicalSet()._clamped(noise)
    before, after = (torch.fft.rfft2(t, norm="ortho") for t in (noise, moved))
    inside = deviations(noise).abs() <= 1.5
    assert deviations(moved).abs().max() < 1.501
    member = (rings(16, 16)[0] > 0)[:, inside[0, 0]].any(1).reshape(16, 9)
    torch.testing.assert_close(before[0, 0][member], after[0, 0][member], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        before.angle()[..., 1:-1], after.angle()[..., 1:-1], rtol=0, atol=1e-3
    )


def test_the_typical_set_is_what_the_spectrum_regularizer_calls_white():
    tilted = [t + torch.linspace(-1, 1, 16) for t in gaussian(2, 4, 16, 16, count=2).tensors()]
    kept = TypicalSet(tolerance=1.0)([t.detach() for t in tilted])
    spectrum = Spectrum(tolerance=1.5)
    assert (spectrum(Noise(tilted[0], tilted[1:])) < -1).all()
    assert (spectrum(Noise(kept[0], kept[1:])) > -1e-3).all()


@pytest.mark.parametrize("scale", [1.0, 1e-25])
def test_whitening_gives_every_ring_the_same_power(scale):
    y, x = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    smooth = torch.exp(-((y - 8) ** 2 + (x - 8) ** 2) / 8) + 0.1 * draws(2, 4, 16, 16)
    (white,) = Whitened()([scale * smooth])
    power = ring_power(torch.fft.rfft2(white, norm="ortho"), (16, 16))
    torch.testing.assert_close(power, torch.ones_like(power), rtol=1e-3, atol=1e-3)
    (left,) = Whitened(power=0.0)([scale * smooth])
    torch.testing.assert_close(left, smooth / smooth.square().mean((1, 2, 3), keepdim=True).sqrt())


def test_an_image_without_a_gradient_stays_without():
    gradient = torch.cat([draws(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)])
    for projection in (Whitened(), BlockNorms()):
        (moved,) = projection([gradient])
        assert not moved[1].any() and moved[0].any() and moved.isfinite().all()
    noise, angle = draws(2, 4, 8, 8, seed=1), torch.full((2,), 0.3)
    turned = rotated(noise, gradient, angle, TypicalSet())
    assert torch.equal(turned[1], noise[1]) and not torch.equal(turned[0], noise[0])


def test_a_turn_by_an_angle():
    """Of two orthogonal noises of rms 1 without K: cos z + sin g, at that angle to z."""
    z, g = Sphere()([draws(1, 4, 32, 32), draws(1, 4, 32, 32, seed=1)])
    g = Sphere()([g - (g * z).sum() / z.square().sum() * z])[0]
    turned = rotated(z, g, torch.tensor([0.2]), lambda tensors: list(tensors))
    torch.testing.assert_close(turned, math.cos(0.2) * z + math.sin(0.2) * g)
    cosine = torch.nn.functional.cosine_similarity(turned.flatten(), z.flatten(), dim=0)
    assert math.acos(float(cosine)) == pytest.approx(0.2, abs=1e-3)


def blocks_of(tensor, size=16):
    """The coefficients as the paper has them, in double precision."""
    spectrum = torch.fft.rfft(tensor.double().flatten(1), norm="ortho")
    ends = (spectrum[:, :1].real + 1j * spectrum[:, -1:].real) / math.sqrt(2)
    return torch.cat([ends, spectrum[:, 1:-1]], 1).reshape(len(tensor), -1, size)


@pytest.mark.parametrize("shape", [(2, 4, 16, 16), (1, 3, 8, 20)], ids=str)
def test_block_norms_are_met(shape):
    (moved,) = BlockNorms()([draws(*shape, scale=5.0) + 1])
    count = moved[0].numel() // 2 // 16 * 16
    blocks = blocks_of(moved, 1)[:, :count, 0].reshape(len(moved), -1, 16)
    torch.testing.assert_close(
        blocks.abs().sum(-1), torch.full_like(blocks.abs().sum(-1), math.sqrt(math.pi) / 2 * 16),
        rtol=1e-4, atol=0,
    )  # fmt: skip
    torch.testing.assert_close(
        blocks.abs().square().sum(-1), torch.full_like(blocks.abs().sum(-1), 16), rtol=1e-4, atol=0
    )


def test_block_norms_give_the_nearest_point():
    """No other point of the set is nearer: against many, and against projected descent."""
    given = draws(1, 1, 4, 8, scale=2.0, seed=3)
    (moved,) = BlockNorms()([given])
    distance = (moved - given).norm()
    projection = BlockNorms()
    for seed in range(300):  # points of the set: other noise, and neighbours of the solution
        for other in (draws(1, 1, 4, 8, seed=seed), moved + 0.05 * draws(1, 1, 4, 8, seed=seed)):
            assert (projection([other])[0] - given).norm() >= distance - 1e-4
    again = projection([moved])[0]
    torch.testing.assert_close(again, moved, rtol=1e-3, atol=1e-3)


def test_true_noise_hardly_moves():
    noise = draws(4, 4, 32, 32)
    (moved,) = BlockNorms()([noise])
    cosine = torch.nn.functional.cosine_similarity(moved.flatten(1), noise.flatten(1))
    assert cosine.mean() == pytest.approx(0.9887, abs=0.002)


def test_the_sphere_is_the_one_that_the_climb_started_on():
    start = [draws(2, 4, 8, 8, seed=s, scale=0.9) for s in range(2)]
    kept = Sphere().at(start)([t * 3 + 1 for t in start])
    for moved, first in zip(kept, start, strict=True):
        torch.testing.assert_close(moved.flatten(1).norm(dim=1), first.flatten(1).norm(dim=1))
    (unit,) = Sphere()([start[0]])
    torch.testing.assert_close(unit.flatten(1).norm(dim=1), torch.full((2,), 16.0))

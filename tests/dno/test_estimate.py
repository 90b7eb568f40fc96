"""Estimated gradients: against the exact one on a closed-form problem, and through ComfyUI."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ComfyUI_DNO.dno.ascent import ascend
from ComfyUI_DNO.dno.autograd.profile import Live
from ComfyUI_DNO.dno.checks import NoGradientError
from ComfyUI_DNO.dno.estimate import METHODS, SCALES, Estimated, Point
from ComfyUI_DNO.dno.gradient import Exact, Problem
from ComfyUI_DNO.dno.method import Ascent, Task
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Reward, Weighted

from ..nodes.test_sampler_node import Tilt, run
from ..nodes.test_sampler_node import parts as parts  # the fixture

SHAPE = (2, 3, 3, 4)  # 36 numbers an image


def mixer(seed: int):
    matrix = torch.randn(36, 36, generator=torch.Generator().manual_seed(seed)) / 6
    return lambda x: (x.flatten(1) @ matrix).reshape(x.shape)


render_map, decode_map = mixer(1), mixer(2)


def render(noise: Noise):
    return render_map(noise.initial)


def decode(latent):
    return torch.sigmoid(decode_map(latent))


class Quadratic(Reward):
    """-|image - target|^2, with its gradient declared or hidden."""

    def __init__(self, differentiable: bool, flat: bool = False):
        self.differentiable, self.flat = differentiable, flat

    def __call__(self, image):
        assert self.differentiable or not torch.is_grad_enabled()
        reward = -(image - 0.3).square().sum((1, 2, 3))
        return reward.round() * 0 if self.flat else reward


def objective(differentiable: bool, flat: bool = False, **others):
    return Objective({"quadratic": Weighted(2.0, Quadratic(differentiable, flat)), **others})


def noise():
    return Noise(torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)))


def noise_gradient(gradient, wanted: Objective, step: int = 0):
    """d(reward)/d(noise), (B,36), as the ascent would take it."""
    evaluated = gradient.evaluate(Problem(render, decode, wanted), noise(), step, True)
    (slope,) = evaluated.gradients()
    return slope.flatten(1)


def cosine(samples: int, **options) -> float:
    """Mean cosine with the exact gradient over images and ten draws."""
    exact = noise_gradient(Exact(), objective(True))
    seen = []
    for seed in range(10):
        estimated = Estimated(samples=samples, mu=0.001, seed=seed, at_once=8, **options)
        seen.append(cosine_similarity(noise_gradient(estimated, objective(False)), exact).mean())
    return float(torch.stack(seen).mean())


@pytest.mark.parametrize("antithetic", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_more_samples_come_closer(method, antithetic):
    few, many = (cosine(samples, method=method, antithetic=antithetic) for samples in (8, 512))
    assert few < many - 0.1
    # Hybrid-2 tends to J J^T g, not g, before the Jacobian: aligned with it, never quite the same.
    assert many > (0.75 if method == "hybrid-2" else 0.9)


@pytest.mark.parametrize("directions", [4, 16, 64])
def test_the_rate_is_that_of_random_directions(directions):
    """Of n numbers, S Gaussian directions catch cos^2 = S / (n + S + 1) of a gradient."""
    similarity = cosine(2 * directions, method="zeroth order")
    expected = (directions / (36 + directions + 1)) ** 0.5
    assert similarity == pytest.approx(expected, abs=0.08)


@pytest.mark.parametrize("scale", ["calibrated", "none"])
@pytest.mark.parametrize("method", ["hybrid-1", "zeroth order"])
def test_length_is_the_gradients(method, scale):
    exact = noise_gradient(Exact(), objective(True))
    estimated = Estimated(method, mu=0.001, samples=2000, scale=scale, at_once=50)
    ratio = noise_gradient(estimated, objective(False)).norm(dim=1) / exact.norm(dim=1)
    assert (ratio > 0.85).all() and (ratio < 1.15).all()


@pytest.mark.parametrize("method", METHODS)
def test_how_many_run_at_once_does_not_matter(method):
    one, seven = (
        noise_gradient(Estimated(method, samples=20, at_once=n), objective(False)) for n in (1, 7)
    )
    assert torch.allclose(one, seven, atol=1e-5)
    other = noise_gradient(Estimated(method, samples=20, seed=1, at_once=7), objective(False))
    later = noise_gradient(Estimated(method, samples=20, at_once=7), objective(False), step=1)
    assert not torch.allclose(one, other, atol=1e-3)
    assert not torch.allclose(one, later, atol=1e-3)


@pytest.mark.parametrize("scale", SCALES)
def test_directions_drawn_again_give_what_all_at_once_would(scale):
    """Hybrid-1's estimate by its formula, from every direction in one tensor."""
    estimated = Estimated("hybrid-1", samples=40, mu=0.01, scale=scale)
    image = torch.rand(SHAPE, generator=torch.Generator().manual_seed(3))
    reward = Quadratic(False)
    xi = torch.stack([estimated._draw(5, index, [image])[0] for index in range(20)])
    ahead, behind = ((image + h * xi).clamp(0, 1) for h in (0.01, -0.01))
    with torch.no_grad():
        slopes = torch.stack([reward(a) - reward(b) for a, b in zip(ahead, behind, strict=True)])
    slopes = slopes / 0.02
    wanted = (slopes[..., None, None, None] * xi).mean(0)
    if scale == "unit":
        wanted = wanted / wanted.flatten(1).norm(dim=1)[:, None, None, None]
    if scale == "calibrated":
        along = (xi * wanted).sum((2, 3, 4))
        wanted = wanted * ((slopes * along).sum(0) / along.square().sum(0))[:, None, None, None]
    blind = Objective({"quadratic": Weighted(1.0, reward)})
    point = Point(Problem(render, decode, blind), noise(), 5)
    with torch.no_grad():
        estimate = estimated._image_gradient(point, blind, image, reward(image))
    torch.testing.assert_close(estimate, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", ["hybrid-1", "zeroth order"])
def test_memory_does_not_grow_with_the_samples(method):
    peaks = []
    for samples in (16, 256):
        with Live() as live:
            noise_gradient(Estimated(method, samples=samples, at_once=4), objective(False))
        peaks.append(live.peak)
    assert peaks[1] < 1.5 * peaks[0]


@pytest.mark.parametrize("method", ["hybrid-1", "hybrid-2"])
def test_a_term_with_a_gradient_keeps_it_exact(method):
    exact = noise_gradient(Exact(), objective(True))
    size = {"size": Weighted(1.0, Quadratic(False, flat=True))}
    estimated = Estimated(method, samples=4, at_once=4)
    assert torch.allclose(noise_gradient(estimated, objective(True, **size)), exact, atol=1e-6)
    assert torch.allclose(noise_gradient(estimated, objective(True)), exact, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_flat_reward_is_reported(method):
    climb = ascend(
        render, decode, objective(False, flat=True), noise(), gradient=Estimated(method, at_once=4)
    )
    assert next(climb).reward.tolist() == [0.0, 0.0]
    with pytest.raises(NoGradientError, match="no gradient at iteration 0"):
        next(climb)


@pytest.mark.parametrize("method", METHODS)
def test_unit_length(method):
    pulled = Estimated(method, samples=8, scale="unit", at_once=8)
    problem = Problem(lambda z: z.initial * 1, lambda latent: latent, objective(False))
    (upper,) = pulled.evaluate(problem, noise(), 0, True).gradients()
    assert torch.allclose(upper.flatten(1).norm(dim=1), torch.ones(2), atol=1e-5)


def test_how_many_fit_at_once_is_asked_while_the_graph_waits():
    asked, batches = [], []

    def sampled(noise: Noise):
        batches.append(len(noise.initial))
        return render(noise)

    def fitting() -> int:
        asked.append(list(batches))
        return 4

    problem = Problem(sampled, decode, objective(False), fitting)
    list(Ascent(iterations=1).iterates(Task(problem, noise())))
    assert asked == [[2]]
    assert batches == [2, 8, 8, 2]


class BlindTilt(Tilt):
    differentiable = False


@pytest.mark.parametrize("gradient", [None, *(Estimated(method, samples=16) for method in METHODS)])
def test_a_reward_without_a_gradient_rises_in_comfyui(parts, gradient):
    assert_rises(parts, gradient=gradient, iterations=4)


def test_the_kept_region_is_the_same_in_every_perturbed_sampling(parts):
    """ddim draws it for the whole batch: perturbed samplings must not be batched then."""
    masked = {"samples": torch.ones(2, 4, 8, 8), "noise_mask": torch.ones(1, 64, 64)}
    assert_rises(parts, masked, Estimated(samples=8), 2, sampler_name="ddim")


def assert_rises(parts, latent=None, gradient=None, iterations=4, **inputs):
    reward = {"blind": Weighted(1.0, BlindTilt())}
    free = {"gradient": gradient, "learning_rate": 0.1, "regularizer": {}}
    history = run(parts, latent, reward, iterations, **free, **inputs)[1]
    assert (history.best.reward > history.records[0].reward + 1e-3).all()

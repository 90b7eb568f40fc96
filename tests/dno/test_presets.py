"""Each preset's rule is the published one: against a loop of its own on a problem in closed form.

The sample is a noise scaled number by number, the reward a bowl: every gradient is a formula.
"""

import inspect
import math
from pathlib import Path

import pytest
import torch

import ComfyUI_DNO.regularizers as regularizers
from ComfyUI_DNO.dno import presets
from ComfyUI_DNO.dno.block_norms import BlockNorms
from ComfyUI_DNO.dno.gradient import Problem
from ComfyUI_DNO.dno.method import Ascent, Task, Then
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Weighted
from ComfyUI_DNO.dno.presets import PRESETS
from ComfyUI_DNO.dno.search import TrustRegions, _Regions
from ComfyUI_DNO.dno.steer import Steer
from ComfyUI_DNO.regularizers import Probability

from ..support.toy import SIGMAS, Ramp, Toy, normal

SHAPE = (2, 8, 8)
SIZE = 128
SCALE = torch.linspace(0.5, 2.0, 64).reshape(8, 8)
TARGET = normal(1, *SHAPE, seed=5)
STEPS = 6


class Bowl:
    differentiable = True

    def __call__(self, image):
        return -(image - TARGET).square().sum((1, 2, 3))


def task(preset, strength=1.0):
    """The preset's own objective on the bowl, times `strength`."""
    penalties = {
        penalty.name: Weighted(
            penalty.weight, getattr(regularizers, penalty.name)(**penalty.fields)
        )
        for penalty in preset.penalties
    }
    objective = Objective({"bowl": Weighted(strength, Bowl())}, penalties)

    noise = Noise(normal(2, *SHAPE), scope=preset.scope)
    return Task(Problem(lambda given: SCALE * given.initial, lambda x: x, objective), noise)


def bowl_gradient(z, strength=1.0):
    return -2 * strength * SCALE * (SCALE * z - TARGET)


def norms(tensor):
    return tensor.flatten(1).norm(dim=1).reshape(-1, 1, 1, 1)


def path(preset, **options):
    """The initial noise of the first iterates."""
    noises = []
    iterates = preset.method.iterates(task(preset, **options))
    for _, iterate in zip(range(STEPS), iterates, strict=False):
        noises.append(iterate.noise.initial.detach().clone())
    iterates.close()
    return noises


def assert_same(ours, expected, tolerance=1e-4):
    assert len(ours) == len(expected) == STEPS
    for mine, theirs in zip(ours, expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=tolerance, atol=tolerance)


class AdamByHand:
    """arXiv 1412.6980, algorithm 1, uphill."""

    def __init__(self, rate, beta1=0.9, beta2=0.999):
        self.rate, self.betas, self.m, self.v, self.t = rate, (beta1, beta2), 0, 0, 0

    def __call__(self, z, g):
        self.t += 1
        b1, b2 = self.betas
        self.m, self.v = b1 * self.m + (1 - b1) * g, b2 * self.v + (1 - b2) * g * g.conj()
        mean, square = self.m / (1 - b1**self.t), self.v / (1 - b2**self.t)
        return z + self.rate * mean / (square.sqrt() + 1e-8)


@pytest.mark.parametrize("title", PRESETS)
def test_each_preset_states_its_source_and_runs(title):
    preset = PRESETS[title]
    assert preset.title == title and "  " not in preset.source
    assert preset.source.startswith(("arXiv", "This pack's", "The baseline"))
    for penalty in preset.penalties:
        assert hasattr(regularizers, penalty.name) and penalty.name in (
            preset.source + " gamma Probability"
        )
    assert preset.scope in ("all", "initial") and preset.carried in ("all", "first")
    first = next(iter(preset.method.iterates(Toy().task(Ramp(), scope=preset.scope))))
    assert first.reward.isfinite().all()


def test_every_file_of_the_folder_is_a_preset():
    folder = Path(inspect.getfile(presets)).parent
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "base"}
    named = {preset.title for preset in PRESETS.values()}
    assert len(named) == len(files) + 2  # fast.py holds three


def test_dno_paper():
    """Adam 0.01 on reward + gamma log p, the gradient of each image clipped to norm 1."""
    noises = path(PRESETS["DNO paper"], strength=0.05)
    probability = Probability(form="paper")
    z, adam, expected = normal(2, *SHAPE), AdamByHand(0.01), []
    clipped = 0
    for _ in range(STEPS):
        expected.append(z.clone())
        live = Noise(z)
        value = probability(live)
        g = bowl_gradient(z, 0.05)
        if value.requires_grad:
            g = g + torch.autograd.grad(value.sum(), live.initial)[0]
        clipped += int((norms(g) > 1).sum())
        z = adam(z, g / norms(g).clamp(min=1))
    assert clipped
    assert_same(noises, expected)


def test_dno_paper_without_gradient():
    method = PRESETS["DNO paper without gradient"].method
    assert method.gradient.method == "hybrid-2" and method.gradient.scale == "unit"
    assert (method.learning_rate, method.clip, method.iterations) == (0.01, 1.0, 50)


def test_reno():
    """v <- 0.9 v + g, z <- z + 5 (g + 0.9 v), g clipped to 0.1; Norm (n-1) log|z| - |z|^2/2."""
    noises = path(PRESETS["ReNO"], strength=0.01)
    z, v, expected = normal(2, *SHAPE), 0.0, []
    for _ in range(STEPS):
        expected.append(z.clone())
        g = bowl_gradient(z, 0.01) + 0.01 * ((SIZE - 1) / norms(z) ** 2 - 1) * z
        g = g * (0.1 / norms(g)).clamp(max=1)
        v = 0.9 * v + g
        z = z + 5.0 * (g + 0.9 * v)
    assert_same(noises, expected)


def test_d_flow():
    """The points at which torch's L-BFGS with its line search asks, image by image."""
    noises = path(PRESETS["D-Flow"])
    start, asked = normal(2, *SHAPE), [[], []]
    for image in range(2):
        z = start[image].clone().requires_grad_()
        optimizer = torch.optim.LBFGS(
            [z], max_eval=STEPS, max_iter=100, history_size=10, line_search_fn="strong_wolfe"
        )

        def closure(z=z, image=image, optimizer=optimizer):
            asked[image].append(z.detach().clone())
            optimizer.zero_grad()
            loss = -Bowl()((SCALE * z)[None]).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    expected = [torch.stack(pair) for pair in zip(*asked, strict=False)][:STEPS]
    assert_same(noises, expected)


def test_doodl():
    """Elementwise clip 0.001, momentum 0.9, jitter 0.0001, then the first length restored."""
    noises = path(PRESETS["DOODL"])
    z, b, expected = normal(2, *SHAPE), 0.0, []
    length, generator = norms(z), torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        expected.append(z.clone())
        b = 0.9 * b + bowl_gradient(z).clamp(-0.001, 0.001)
        z = z + b + 0.0001 * torch.randn(2, *SHAPE, generator=generator)
        z = z * length / norms(z)
    assert_same(noises, expected, 1e-5)


def test_origen():
    """z <- sqrt(1 - gamma) z + eta g + sqrt(gamma) xi, from the code of the formula."""
    noises = path(PRESETS["ORIGEN"], strength=0.001)
    z, expected, generator = normal(2, *SHAPE), [], torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        expected.append(z.clone())
        g = bowl_gradient(z, 0.001)
        g = g * (1 / norms(g)).clamp(max=1)
        xi = torch.randn(2, *SHAPE, generator=generator)
        z = math.sqrt(0.998) * z + g + math.sqrt(0.002) * xi
    assert_same(noises, expected)


def test_sdo():
    noises = path(PRESETS["SDO"])
    z, adam, expected = normal(2, *SHAPE), AdamByHand(0.01, 0.9, 0.9), []
    for _ in range(STEPS):
        expected.append(z.clone())
        z = adam(z, bowl_gradient(z))
    assert_same(noises, expected)
    assert PRESETS["SDO"].carried == "first" and PRESETS["SDO"].method.iterations == 100


def test_sonic():
    """x0 = z - stop(z - x0), Adam 3.0 on rfft2(z); the sampling's own scale is not seen."""
    noises = path(PRESETS["SONIC"])
    y = torch.fft.rfft2(normal(2, *SHAPE)).requires_grad_()
    optimizer, expected = torch.optim.Adam([y], lr=3.0), []
    for _ in range(STEPS):
        z = torch.fft.irfft2(y, s=(8, 8))
        expected.append(z.detach().clone())
        sample = z - (z - SCALE * z).detach()
        loss = -Bowl()(sample).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert_same(noises, expected)


def test_wgnc():
    """Projected gradient, Adam, projected noise. (The projection itself has its own tests.)"""
    preset = PRESETS["WGNC"]
    noises, project = path(preset), BlockNorms(16)
    z, adam, expected = normal(2, *SHAPE), AdamByHand(preset.method.learning_rate), []
    for _ in range(STEPS):
        expected.append(z.clone())
        z = project([adam(z, project([bowl_gradient(z)])[0])])[0]
    assert_same(noises, expected, 1e-3)


def test_ntrk():
    """z' = sqrt(rho) W(grad) + sqrt(1 - rho) z for each injected draw, W Gaussian by rank."""
    rho, toy = 0.03, Toy()
    noise = toy.task(Ramp()).noise
    toy.render(noise)
    (iterate,) = PRESETS["NTRK-like one pass"].method.iterates(toy.task(Ramp()))
    sigma = SIGMAS[0]
    denoised = toy.denoise(noise.initial.detach() * sigma, sigma)
    live = denoised.clone().requires_grad_()
    (g,) = torch.autograd.grad(Ramp()(toy.decode(live)).sum(), live)
    rank = g.flatten(1).argsort(1).argsort(1)
    w = torch.distributions.Normal(0, 1).icdf((rank + 0.5) / rank.shape[1]).reshape(g.shape)
    expected = math.sqrt(rho) * w + math.sqrt(1 - rho) * noise.injected[0].detach()
    torch.testing.assert_close(iterate.noise.injected[0].detach(), expected, rtol=1e-3, atol=1e-4)


def test_trs():
    """A fifth from the prior, then masked steps around the best of each image."""
    method = TrustRegions(budget=40, regions=5)
    preset = PRESETS["TRS"]
    assert (preset.method.regions, preset.method.prior) == (15, 0.2)
    problem = task(preset)
    tried = list(method.iterates(problem))
    assert [iterate.step for iterate in tried] == list(range(40))
    rewards = torch.stack([iterate.reward for iterate in tried])
    assert (rewards[8:].amax(0) > rewards[:8].amax(0)).all()
    first = tried[0].noise.initial
    shared = [int((iterate.noise.initial == first).flatten(1).any(1).sum()) for iterate in tried]
    assert shared[1:8] == [0] * 7  # draws of their own, then masked steps from the centres
    assert max(shared[8:]) > 0


def test_trs_lengths_grow_after_three_successes_and_shrink_after_three_failures():
    start = Noise(normal(2, *SHAPE))
    regions = _Regions(TrustRegions(regions=1), [(start, torch.zeros(2))])
    for value, length in ((1, 0.5), (2, 0.5), (3, 0.75), (0, 0.75), (0, 0.75), (0, 0.5)):
        noise, region = regions.propose(0, value)
        regions.learn(region, noise, torch.tensor([float(value), -1.0]))
        assert regions._lengths[0, 0] == pytest.approx(length)
    assert regions._lengths[0, 1] == pytest.approx(0.5 / 1.5 / 1.5)
    moved, _ = regions.propose(0, 99)
    share = (moved.initial[1] != start.initial[1]).float().mean()
    assert share == pytest.approx(0.5, abs=0.15)
    assert torch.equal(regions._centres[0].initial[1], start.initial[1])


def test_best_of_n():
    preset = PRESETS["best of N"]
    iterates = list(preset.method.iterates(task(preset)))
    draws = torch.stack([iterate.noise.initial.detach() for iterate in iterates])
    assert len(iterates) == 16 and torch.equal(draws[0], normal(2, *SHAPE))
    rows = draws.flatten(2).flatten(0, 1)
    correlation = rows @ rows.T / SIZE
    assert (correlation - torch.diag(correlation.diag())).abs().max() < 0.5


def test_fast_is_sixty_evaluations_at_ten_steps():
    passes = [(each.angle, each.start) for each in PRESETS["fast"].method.passes]
    assert passes == [(14, "seed"), (14, "fresh"), (14, "fresh"), (10, "best"), (8, "best")]
    assert [each.rough for each in PRESETS["fast"].method.passes] == 3 * [True] + 2 * [False]
    toy = Toy(sigmas=torch.linspace(5, 0, 11))
    list(PRESETS["fast"].method.iterates(toy.task(Ramp())))
    assert toy.evaluations == 60
    toy = Toy(sigmas=torch.linspace(5, 0, 11))
    list(PRESETS["one pass"].method.iterates(toy.task(Ramp())))
    assert toy.evaluations == 10


def test_thorough_is_fast_and_exact_turns():
    method = PRESETS["thorough"].method
    assert isinstance(method, Then) and isinstance(method.first, Steer)
    assert isinstance(method.second, Ascent) and method.differentiates
    assert not method.first.differentiates

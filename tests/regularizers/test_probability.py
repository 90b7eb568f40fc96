"""Probability against the paper's formulas in numpy, and what P(z) says about known noise."""

import math
import weakref

import numpy as np
import pytest
import torch

from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.sharing import sharing
from ComfyUI_DNO.regularizers import Probability
from ComfyUI_DNO.regularizers._shuffle import (
    _pairs,
    _ShuffledMoments,
    _shuffles,
    _there,
    moments,
    shuffled_moments,
)

from ..support.examples import gaussian, gradients


def paper(vector, k):
    """log p1 and log p2 of one vector, written from arXiv 2405.18881 in numpy."""
    m = len(vector) // k
    rows = vector[: m * k].reshape(m, k)
    m1 = np.linalg.norm(sum(rows) / m)
    m2 = np.linalg.norm(sum(np.outer(row, row) for row in rows) / m - np.eye(k), 2)
    p1 = -m * m1**2 / (2 * k)
    p2 = -m / 2 * max(math.sqrt(1 + m2) - 1 - math.sqrt(k / m), 0) ** 2
    return min(0, math.log(2) + p1), min(0, math.log(2) + p2)


def orders(n, permutations):
    """The permutations of range(n) that the regularizer uses."""
    pairs = _pairs(permutations)
    shuffles = _shuffles(n, len(pairs))[0].long().numpy()
    return [shuffles[first][shuffles[second]] for first in pairs for second in pairs[first]]


@pytest.mark.parametrize(
    "k, permutations, size", [(4, 100, (4, 6, 6)), (4, 7, (3, 5, 7)), (1, 3, (2, 4, 4))]
)
@pytest.mark.parametrize("scale, shift", [(1.0, 0.0), (1.3, 0.0), (0.6, 0.0), (1.0, 0.4)])
def test_agrees_with_the_formulas_in_numpy(k, permutations, size, scale, shift):
    noise = gaussian(2, *size, count=2, scale=scale, shift=shift)
    score = Probability(k, permutations, "paper")(noise)
    indicator = Probability(k, permutations).indicator(noise)
    for image in range(2):
        parts = [leaf[image].detach().double().numpy().ravel() for leaf in noise.leaves()]
        vector = np.concatenate(parts)
        shuffled = [paper(vector[order], k) for order in orders(len(vector), permutations)]
        own = paper(vector, k)
        expected = sum(own) + np.mean([sum(logs) for logs in shuffled])
        assert score[image].item() == pytest.approx(expected, rel=1e-4, abs=1e-4)
        smallest = math.exp(min(min(logs) for logs in [own, *shuffled]))
        assert indicator[image].item() == pytest.approx(smallest, rel=1e-3)


def test_normalised_is_the_papers_sum_over_the_root_of_the_number_of_rows():
    noise = gaussian(2, 4, 16, 16, scale=1.2)
    torch.testing.assert_close(Probability()(noise), Probability(form="paper")(noise) / 16)


@pytest.mark.parametrize("permutations", [1, 2, 3, 100, 111])
def test_the_orders_are_distinct_permutations_of_everything(permutations):
    indices = orders(101, permutations)
    assert len(indices) == permutations
    assert all(sorted(order) == list(range(101)) for order in indices)
    assert len({order.tobytes() for order in indices}) == permutations


@pytest.mark.parametrize("permutations", [1, 2, 3, 100, 111])
def test_no_shuffle_is_composed_with_itself(permutations):
    pairs = _pairs(permutations)
    assert all(first not in seconds for first, seconds in pairs.items())
    assert sum(map(len, pairs.values())) == permutations


def test_the_orders_mix_like_independent_ones():
    """Variance of a statistic over composed orders, against its exact value for random ones."""
    values = gaussian(1, 1, 1, 4096).initial.detach().flatten().numpy()
    halves = np.array([values[order][:2048].mean() for order in orders(4096, 100)])
    expected = values.var() / 2048 * (4096 - 2048) / 4095
    assert halves.var() == pytest.approx(expected, rel=0.5)
    assert abs(halves.mean() - values.mean()) < 4 * math.sqrt(expected / 100)


def test_moments_have_the_gradient_of_a_plain_gather():
    rows = gaussian(2, 1, 1, 43).initial.detach().flatten(1).double().requires_grad_()
    index = torch.from_numpy(np.stack(orders(43, 5)))
    gathered = [moments(rows[:, order], 4) for order in index]
    plain = [torch.stack(part, dim=1) for part in zip(*gathered, strict=True)]
    ours = shuffled_moments(rows, 4, 5)
    weights = [torch.randn_like(part) for part in plain]
    weights[0][:, 2], weights[1][:, 2] = 0, 0
    for mine, theirs in zip(ours, plain, strict=True):
        torch.testing.assert_close(mine, theirs)
    mine = torch.autograd.grad(ours, rows, weights)
    torch.testing.assert_close(mine, torch.autograd.grad(plain, rows, weights))


@pytest.mark.parametrize("climb", [True, False])
def test_score_and_indicator_share_one_computation(monkeypatch, climb):
    counted, forward = [], _ShuffledMoments.forward

    def count(*arguments):
        counted.append(1)
        return forward(*arguments)

    noise = gaussian(2, 4, 8, 8, scale=1.2)
    apart = Probability()(noise), Probability().indicator(noise)
    slope = gradients(Probability(), noise)
    monkeypatch.setattr(_ShuffledMoments, "forward", count)
    with sharing(), torch.set_grad_enabled(climb):
        score = Probability(form="paper")(noise) / math.sqrt(64)
        indicator = Probability().indicator(noise)
        assert len(counted) == 1
        Probability().indicator(gaussian(2, 4, 8, 8, scale=1.2))
        Probability(permutations=7).indicator(noise)
        assert len(counted) == 3
    torch.testing.assert_close((score, indicator), apart)
    assert not indicator.requires_grad
    if climb:
        assert torch.equal(torch.autograd.grad(score.sum(), noise.leaves())[0], slope[0])


def test_shuffles_are_moved_once_for_a_noise_and_go_with_it():
    noise, device = gaussian(1, 4, 8, 8), torch.device("meta")
    first = _there((noise, device, 256, 11), 0)
    assert first.device == device and _there((noise, device, 256, 11), 0) is first
    assert _there((noise, device, 256, 11), 1) is not first
    assert _there((gaussian(1, 4, 8, 8), device, 256, 11), 0) is not first
    gone = weakref.ref(first)
    del noise, first
    assert gone() is None
    assert _there((None, torch.device("cpu"), 256, 11), 0) is _shuffles(256, 11)[0]


def test_inside_the_typical_set_score_and_gradient_are_exactly_zero():
    regularizer = Probability(k=1, permutations=20)
    noise = Noise(torch.tensor([1.0, -1.0]).repeat(4096).view(1, 2, 64, 64))
    assert regularizer(noise).item() == 0
    assert gradients(regularizer, noise)[0].abs().max().item() == 0
    assert regularizer.indicator(noise).item() == 1


def test_gaussian_noise_is_probable_and_other_noise_is_not():
    indicator = Probability().indicator
    assert all(indicator(gaussian(2, 16, 16, 16, seed=seed)).min() > 0.05 for seed in range(20))
    for scale, shift in [(1.1, 0.0), (0.9, 0.0), (1.0, 0.1), (1.0, -0.1)]:
        for seed in range(5):
            noise = gaussian(2, 16, 16, 16, count=4, seed=seed, scale=scale, shift=shift)
            assert indicator(noise).max() < 1e-4


def shifted(base, shift):
    return Noise(base.initial + shift, [draw + shift for draw in base.injected])


def equilibrium(form, weight, count, size):
    """log P(z) where a reward of 6 per unit of the mean balances the regularizer."""
    base, regularizer = (
        gaussian(1, 4, size, size, count=count),
        Probability(permutations=10, form=form),
    )
    with torch.no_grad():
        best = max(
            (6 * shift + weight * regularizer(shifted(base, shift)).item(), shift)
            for shift in np.linspace(0, 0.3, 121)
        )[1]
    return math.log(max(regularizer.indicator(shifted(base, best)).item(), 1e-30))


def test_one_weight_holds_the_same_probability_at_every_size():
    normalised = [equilibrium("normalised", 1.0, *case) for case in [(1, 32), (8, 32), (8, 64)]]
    assert all(-12 < log_p < -2 for log_p in normalised)
    assert max(normalised) - min(normalised) < 4


def test_too_little_noise_for_a_row_is_explained():
    with pytest.raises(ValueError, match="Probability: k is 4, but only 3 numbers"):
        Probability()(gaussian(1, 3, 1, 1))
    with pytest.raises(ValueError, match="only 0 numbers"):
        Probability()(Noise(torch.randn(1, 4, 8, 8), scope="injected"))


def test_equal_eigenvalues_have_a_finite_gradient():
    rows = torch.tensor([[1.0, 1.0, -1.0, -1.0], [1.0, -1.0, 1.0, -1.0]])  # covariance 4 I in twos
    noise = Noise(2 * rows.repeat(1, 64, 1)[None])
    slope = gradients(Probability(k=2, permutations=1), noise)[0]
    assert torch.isfinite(slope).all()
    assert slope.abs().max() > 0

"""Best of N on noise whose best is known in closed form."""

from __future__ import annotations

import math

import pytest
import torch

from ComfyUI_DNO.dno.best import best_of
from ComfyUI_DNO.dno.checks import NonFiniteError
from ComfyUI_DNO.dno.noise import Noise


def column(*values, injected=()):
    return Noise(torch.tensor(values)[:, None], [torch.tensor(draw)[:, None] for draw in injected])


def nearness(noise):
    """0 where every number of an image is 1, less elsewhere."""
    return -sum((tensor - 1).square().sum(1) for tensor in noise.tensors())


def test_each_image_has_its_own_best():
    noises = [column(0.0, 5.0, 9.0), column(1.5, 0.0, 9.5), column(3.0, 4.0, 1.0)]
    best = best_of(noises, nearness)
    assert best.index.tolist() == [1, 1, 2]
    assert best.noise.initial[:, 0].tolist() == [1.5, 0.0, 1.0]
    assert best.reward.tolist() == [-0.25, -1.0, 0.0]
    assert [noise.initial[0, 0].item() for noise in noises] == [0.0, 1.5, 3.0]  # untouched


def test_the_injected_draws_go_with_their_image():
    def render(noise):  # as a sampler does: it records its draws at the first call
        noise.tape().draw(lambda: noise.initial.detach() + 100)
        return nearness(noise)

    best = best_of([column(2.0, 8.0), column(4.0, 3.0)], render)
    assert best.index.tolist() == [0, 1]
    assert best.noise.injected[0][:, 0].tolist() == [102.0, 103.0]
    assert all(leaf.requires_grad for leaf in best.noise.leaves())
    assert best.noise.scope == "all"


def test_draws_that_only_a_later_candidate_has_are_taken_along():
    best = best_of([column(9.0), column(1.0, injected=[(1.0,), (1.0,)])], nearness)
    assert [tensor.item() for tensor in best.noise.tensors()] == [1.0, 1.0, 1.0]


def test_of_equal_ones_the_first():
    assert best_of([column(0.0), column(2.0), column(0.0)], nearness).index.tolist() == [0]


def test_together_takes_the_best_mean():
    noises = [column(1.0, 9.0), column(3.0, 3.0), column(9.0, 1.0)]
    best = best_of(noises, nearness, together=True)
    assert best.index.tolist() == [1, 1]
    assert best.noise.initial[:, 0].tolist() == [3.0, 3.0]


@pytest.mark.parametrize(("count", "expected"), [(2, 1 / math.sqrt(math.pi)), (4, 1.02938)])
def test_the_mean_of_the_best_is_the_expected_maximum(count, expected):
    """Of N standard normals it is known: 1/sqrt(pi) for two, 1.0294 for four."""
    generator = torch.Generator().manual_seed(0)
    draws = (Noise(torch.randn(40_000, 1, generator=generator)) for _ in range(count))
    best = best_of(draws, lambda noise: noise.initial[:, 0])
    assert best.reward.mean().item() == pytest.approx(expected, abs=0.02)
    assert torch.equal(best.reward, best.noise.initial[:, 0].detach())


def test_candidates_are_drawn_one_at_a_time():
    alive = []

    def draw():
        for index in range(3):
            alive.append(index)
            yield column(float(index))

    def reward(noise):
        assert alive == list(range(int(noise.initial) + 1))
        return nearness(noise)

    assert best_of(draw(), reward).index.tolist() == [1]


def test_what_goes_wrong_is_told_in_a_sentence():
    with pytest.raises(NonFiniteError, match=r"^The reward is not finite .* for candidate 1 of"):
        best_of([column(0.0), column(math.nan)], nearness)
    with pytest.raises(ValueError, match="there is no candidate"):
        best_of([], nearness)

"""A sampling may draw more than the one before: the new draws climb with the others."""

import pytest
import torch

from ComfyUI_DNO.dno.ascent import ascend
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Reward, Weighted
from ComfyUI_DNO.dno.optimizers import OPTIMIZERS, Rotation


class Mean(Reward):
    def __call__(self, image):
        return image.mean((1, 2, 3))


@pytest.mark.parametrize("kind", OPTIMIZERS, ids=lambda kind: kind.__name__)
def test_every_optimizer_takes_in_a_draw_that_comes_later(kind):
    samplings = []

    def render(noise):
        samplings.append(noise)
        tape, latent = noise.tape(), noise.initial
        for _ in range(1 if len(samplings) < 3 else 2):
            latent = latent + 0.5 * tape.draw(lambda: torch.full((2, 3, 4, 4), 0.1))
        return latent

    noise = Noise(torch.zeros(2, 3, 4, 4))
    climb = ascend(
        render, lambda latent: latent, Objective({"mean": Weighted(1.0, Mean())}), noise,
        optimizer=kind(), learning_rate=0.1, iterations=8,
    )  # fmt: skip
    rewards = [float(iterate.reward.mean()) for iterate in climb]
    assert len(rewards) == 9 and rewards[-1] > rewards[0]
    first, late = noise.injected
    assert (first - 0.1).abs().max() > 1e-3
    if kind is not Rotation:  # which may find no turn that helps
        assert (late - 0.1).abs().max() > 1e-3

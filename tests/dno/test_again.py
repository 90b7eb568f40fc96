"""An iteration that failed is done again where the failure was mended, and gives the same."""

import pytest
import torch

from ComfyUI_DNO.dno.again import Again
from ComfyUI_DNO.dno.gradient import Exact, Problem
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Reward, Weighted


class Mean(Reward):
    def __call__(self, image):
        return image.square().mean((1, 2, 3))


class Failing(torch.autograd.Function):
    """Fails in the passes that are listed, then no more."""

    left: list[str] = []

    @staticmethod
    def forward(context, x):
        Failing.pop("forward")
        return x * 2

    @staticmethod
    def backward(context, gradient):
        Failing.pop("backward")
        return gradient * 2

    @staticmethod
    def pop(where):
        if where in Failing.left:
            Failing.left.remove(where)
            raise MemoryError(where)


def evaluate(mended):
    noise = Noise(torch.ones(2, 3, 4, 4))
    problem = Problem(
        lambda noise: Failing.apply(noise.initial),
        lambda latent: latent,
        Objective({"mean": Weighted(1.0, Mean())}),
    )
    return Again(Exact(), mended).evaluate(problem, noise, 0, True).gradients()[0]


@pytest.mark.parametrize("failures", [[], ["forward"], ["backward"], ["forward", "backward"]])
def test_a_mended_failure_changes_nothing(failures):
    Failing.left, told = list(failures), []
    gradient = evaluate(lambda error: told.append(str(error)) or True)
    assert torch.allclose(gradient, torch.full_like(gradient, 8 / 48))
    assert told == failures


def test_what_is_not_mended_is_raised():
    Failing.left = ["backward"]
    with pytest.raises(MemoryError, match="backward"):
        evaluate(lambda error: False)

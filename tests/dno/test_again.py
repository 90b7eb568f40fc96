"""An iteration that failed is done again where the failure was mended, and gives the same."""

import gc
import weakref

import pytest
import torch

from ComfyUI_DNO.dno.again import Again
from ComfyUI_DNO.dno.gradient import Evaluated, Exact, Problem
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


def test_without_a_gradient_there_is_nothing_to_mend():
    Failing.left = ["forward"]
    problem = Problem(lambda noise: Failing.apply(noise.initial), None, None)
    with pytest.raises(MemoryError, match="forward"):
        Again(Exact(), lambda error: True).evaluate(problem, Noise(torch.ones(1)), 0, False)


def test_gradients_that_are_wrong_are_taken_again():
    found, wrong = [], [True, False]

    class Counting:
        def evaluate(self, problem, noise, step, climb):
            found.append(len(found))
            number = torch.tensor(len(found))
            return Evaluated(number, number, number, {}, lambda: [number])

    again = Again(Counting(), lambda error: False, lambda: wrong.pop(0))
    assert again.evaluate(None, None, 0, True).gradients() == [2]


class Large:
    """What an evaluation holds until its gradient was taken."""


@pytest.mark.parametrize("where", ["evaluation", "gradient"])
def test_what_failed_is_gone_before_it_is_done_again(where):
    held = []

    class Holding:
        def evaluate(self, problem, noise, step, climb):
            first, large = not held, Large()
            assert first or held[0]() is None
            held.append(weakref.ref(large))
            if first and where == "evaluation":
                raise MemoryError

            def gradients():
                if first and large:
                    raise MemoryError
                return []

            return Evaluated(torch.ones(1), torch.ones(1), torch.ones(1), {}, gradients)

    gc.disable()
    try:
        noise = Noise(torch.ones(1))
        evaluated = Again(Holding(), lambda error: isinstance(error, MemoryError)).evaluate(
            None, noise, 0, True
        )
        assert evaluated.gradients() == []
    finally:
        gc.enable()
    assert len(held) == 2

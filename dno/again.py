"""A gradient that is taken again where what went wrong can be mended, as by using less memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from .gradient import Evaluated, Gradient, Problem
from .noise import Noise


@dataclass(frozen=True)
class Again:
    """`gradient`, each iteration of it from its start until it gets through.

    mended: asked about an error; true if something was changed that may let it pass, for example
            that less is kept for backward. It is not asked again for one that it cannot mend, nor
            where nothing is kept as no gradient will be asked for.
    wrong:  asked about gradients once they are there; true if they are not to be used, and
            something was changed that makes the next ones right.
    """

    gradient: Gradient
    mended: Callable[[Exception], bool]
    wrong: Callable[[], bool] = lambda: False

    def evaluate(self, problem: Problem, noise: Noise, step: int, climb: bool) -> Evaluated:
        evaluated = self._first(problem, noise, step, climb)
        attempts = [evaluated.gradients]  # taken out: a failed one is gone before the next begins

        def gradients() -> list[Tensor]:
            while True:
                try:
                    found = attempts.pop()()
                    if not self.wrong():
                        return found
                except Exception as error:
                    if not self.mended(error):
                        raise
                attempts.append(self._first(problem, noise, step, climb).gradients)

        return replace(evaluated, gradients=gradients)

    def _first(self, problem: Problem, noise: Noise, step: int, climb: bool) -> Evaluated:
        while True:
            try:
                return self.gradient.evaluate(problem, noise, step, climb)
            except Exception as error:
                if not (climb and self.mended(error)):
                    raise

"""Ways to better noise, each a generator of Iterates: climb, steer, search, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor

from .again import Again
from .ascent import Iterate, ascend, weighed
from .estimate import Estimated
from .gradient import Exact, Gradient, Problem
from .noise import Noise
from .optimizers import Adam, Optimizer
from .straight import StraightThrough

SAMPLED, CLIMBED = "sampled", "climbed"  # kinds of iterates: a sampling; one after a backward pass
DIRECTION_SAMPLES = 128  # of Hybrid-1 for one direction: pictures that are scored, none sampled


@dataclass(frozen=True)
class Task:
    """What a method is given.

    problem:    render, decode and objective; `render(noise, tape=, seen=)` for methods that steer.
    noise:      where to start.
    directions: decodes for steering's directions, where that may be cheaper than `problem.decode`;
                rewards that are reported always come from the latter. roughly: for those that need
                not be exact.
    gradient:   of the rewards; None: exact, or estimated where a reward has none.
    seed:       of what a method draws by itself.
    mended:     asked about an error in an iteration; true: it is done again, see `Again`.
    wrong:      asked about gradients that are there; true: they are taken again, see `Again`.
    enough:     asked after every evaluation of the network; true ends the run, what is kept stays.
    """

    problem: Problem
    noise: Noise
    directions: Callable[[Tensor], Tensor] | None = None
    roughly: Callable[[Tensor], Tensor] | None = None
    gradient: Gradient | None = None
    seed: int = 0
    enough: Callable[[], bool] = lambda: False
    mended: Callable[[Exception], bool] = lambda error: False
    wrong: Callable[[], bool] = lambda: False

    def direction(self, sample: Tensor, step: int, rough: bool = False) -> Tensor:
        """d(reward)/d(sample) through decoder and rewards alone, (B,C,...).

        Rewards without a gradient give their Hybrid-1 estimate, which perturbs the picture.
        """
        exact = self.directions or self.problem.decode
        decode = (self.roughly or exact) if rough else exact
        problem = Problem(lambda noise: noise.initial * 1.0, decode, self.problem.objective)
        with torch.enable_grad():
            evaluated = self._of_a_sample().evaluate(problem, Noise(sample), step, True)
            return evaluated.gradients()[0]

    def of_the_noise(self, own: Gradient | None = None) -> Gradient:
        """How a climb differentiates: its own way, else as set, exact, or by Hybrid-2."""
        gradient = own or self.gradient
        if gradient is None:
            gradient = Exact() if self.problem.objective.differentiable else Estimated()
        return Again(gradient, self.mended, self.wrong)

    def _of_a_sample(self) -> Gradient:
        gradient = self.gradient
        if isinstance(gradient, Estimated):
            return replace(gradient, method="hybrid-1")
        if gradient is None and not self.problem.objective.differentiable:
            return Estimated("hybrid-1", samples=DIRECTION_SAMPLES)
        return gradient or Exact()

    def evaluate(self, noise: Noise, step: int, **options: object) -> Iterate:
        """Sample, decode and score, without any gradient through the network.

        options: for `problem.render`.
        """
        render = self.problem.render
        problem = replace(self.problem, render=lambda given: render(given, **options))
        evaluated = Exact().evaluate(problem, noise, step, False)
        return weighed(evaluated, self.problem.objective, noise, step, False)[0]


class Method(Protocol):
    """One way to better noise.

    differentiates: whether the network's gradient is needed, not its evaluation alone.
    iterations:     how many iterates follow the first.
    kind:           of iterate `step`: those of one kind take about as long as each other.
    """

    @property
    def differentiates(self) -> bool: ...

    @property
    def iterations(self) -> int: ...

    def kind(self, step: int) -> str: ...

    def iterates(self, task: Task) -> Iterator[Iterate]:
        """Every noise that is tried, scored; who listens keeps the best."""


@dataclass(frozen=True)
class Ascent:
    """Gradient ascent on the noise through the whole sampling: `ascend` with these settings."""

    optimizer: Optimizer = field(default_factory=Adam)
    learning_rate: float = 0.01
    iterations: int = 50
    clip: float = 1.0
    gradient: Gradient | None = None

    @property
    def differentiates(self) -> bool:
        """Zeroth order and straight-through gradients ask for evaluations alone."""
        own = self.gradient
        blind = isinstance(own, Estimated) and own.method == "zeroth order"
        return self.iterations > 0 and not (blind or isinstance(own, StraightThrough))

    def kind(self, step: int) -> str:
        if step == 0:
            return SAMPLED
        return CLIMBED if self.differentiates else "estimated"

    def iterates(self, task: Task) -> Iterator[Iterate]:
        problem = task.problem
        yield from ascend(
            problem.render,
            problem.decode,
            problem.objective,
            task.noise,
            optimizer=self.optimizer,
            learning_rate=self.learning_rate,
            iterations=self.iterations,
            clip=self.clip,
            gradient=task.of_the_noise(self.gradient),
            at_once=problem.at_once,
        )


@dataclass(frozen=True)
class Then:
    """One method, and from each image's best another one; its iterations are counted on."""

    first: Method
    second: Method

    @property
    def differentiates(self) -> bool:
        return self.first.differentiates or self.second.differentiates

    @property
    def iterations(self) -> int:
        return self.first.iterations + 1 + self.second.iterations

    def kind(self, step: int) -> str:
        if step <= self.first.iterations:
            return self.first.kind(step)
        return self.second.kind(step - self.first.iterations - 1)

    def iterates(self, task: Task) -> Iterator[Iterate]:
        kept = Kept()
        done = -1
        for iterate in kept.following(self.first.iterates(task)):
            done = iterate.step
            yield iterate
        for iterate in self.second.iterates(replace(task, noise=kept.noise.snapshot())):
            yield replace(iterate, step=iterate.step + done + 1)


class Kept:
    """Of the iterates taken in, each image's best noise by the whole objective."""

    def __init__(self) -> None:
        self._noise: Noise | None = None
        self._objective = torch.empty(0)

    @property
    def noise(self) -> Noise:
        if self._noise is None:
            raise ValueError("Nothing was tried yet.")
        return self._noise

    def following(self, iterates: Iterator[Iterate]) -> Iterator[Iterate]:
        """The same iterates, each taken in before it is handed on."""
        for iterate in iterates:
            self.take(iterate)
            yield iterate

    @torch.no_grad()
    def take(self, iterate: Iterate) -> Tensor:
        """Take in one iterate; which images (B,) it betters."""
        objective = iterate.objective.detach().float()
        if self._noise is None:
            self._noise, self._objective = iterate.noise.snapshot(), objective.clone()
            return torch.ones_like(objective, dtype=torch.bool)
        better = objective > self._objective
        self._noise.copy_rows(iterate.noise, better)
        self._objective = torch.where(better, objective, self._objective)
        return better

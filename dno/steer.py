"""Steering: each injected draw is turned along the reward's gradient before it is used.

While the sampling runs, the denoised prediction D says what picture it is heading for. The gradient
of the reward at D, through decoder and reward alone, of rms 1 and whitened if asked, is the
direction g in which the next draw is turned: z <- K(cos z + sin g), K putting it back into the
typical set. The network is only evaluated, and the result is exactly the sampling of the new noise:
it can be replayed and climbed on from. Near NoiseTilt (NTRK, arXiv 2606.18066), which mixes a
whitened gradient into the draws, and to training-free guidance; the projection K is what differs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from .ascent import Iterate
from .checks import NoGradientError
from .fresh import fresh
from .method import SAMPLED, Kept, Task
from .noise import Noise, Tape
from .objective import Regularizer
from .optimizers import Adam, Projected, Rotation
from .projections import Projection, TypicalSet, Whitened, rotated

STARTS = ("seed", "fresh", "best")


@dataclass(frozen=True)
class Pass:
    """One sampling with turns of `angle` degrees.

    start: "seed" turns the seed's own draws, "fresh" new draws after the seed's initial noise,
        "best" each image's best so far.
    rough: its directions may be found by the cheaper decoder, where there is one.
    """

    angle: float
    start: str = "best"
    rough: bool = False


ONE_PASS = (Pass(10, "seed"),)
FAST = (
    *(Pass(14, "seed", rough=True), Pass(14, "fresh", rough=True), Pass(14, "fresh", rough=True)),
    *(Pass(10), Pass(8)),
)


@dataclass(frozen=True)
class Steer:
    """A few samplings, each steered; the first is plain unless there is but one.

    passes:  their angles and starts; five after the plain sampling by default ("Fast-60" at ten
             steps: sixty evaluations of the network).
    whiten:  what makes a gradient a direction; project: K, what a turned draw is brought back to.
    part:    what of a draw may change, a `Part`; None is all of it.
    polish:  a regularizer that a last sampling's noise has climbed by itself; kept where the
             objective is no worse.

    A sampler that draws nothing gets its initial noise turned between the samplings instead,
    straight through: as if the sample moved with the noise (SONIC, arXiv 2511.19985), a turn that
    does not help being halved. So does one whose injected noise is not optimised (scope "initial").
    """

    passes: tuple[Pass, ...] = FAST
    whiten: Projection = Whitened(0.0)
    project: Projection = TypicalSet()
    polish: Regularizer | None = None
    part: Projection | None = None

    differentiates = False

    @property
    def plain_first(self) -> bool:
        return len(self.passes) > 1

    @property
    def iterations(self) -> int:
        return len(self.passes) + (self.polish is not None)

    def kind(self, step: int) -> str:
        passes = range(1, len(self.passes) + 1)
        return "turned" if step in passes else SAMPLED

    def iterates(self, task: Task) -> Iterator[Iterate]:
        kept = Kept()
        try:
            yield from kept.following(self._passes(task, kept))
            if self.polish is not None:
                noise = polished(kept.noise.snapshot(), self.polish)
                yield task.evaluate(noise, self.iterations, seen=_watched(task))
        except _Enough:
            return

    def _passes(self, task: Task, kept: Kept) -> Iterator[Iterate]:
        initial = task.noise.scope == "initial"
        first, plain = task.noise.snapshot(), None
        if self.plain_first or initial:
            plain = task.evaluate(first, 0, seen=_watched(task))
            yield plain
            if initial or not first.injected:
                yield from self._straight(task, plain)
                return
        for step, each in enumerate(self.passes, 1):
            noise = self._start(each.start, task, first, kept, step)
            iterate, turns = self._pass(task, noise, each, step)
            if not turns.draws:  # it draws nothing: that was the plain sampling
                plain = replace(iterate, step=0)
                yield plain
                yield from self._straight(task, plain)
                return
            yield iterate
            _insist(turns.has_gradient)
            if step == 1 and plain is not None and torch.equal(iterate.latent, plain.latent):
                # What it draws counts for nothing (dpm_fast, res_multistep: eta 0).
                yield from self._straight(task, plain, first=2)
                return

    def _start(self, start: str, task: Task, first: Noise, kept: Kept, step: int) -> Noise:
        if start == "best":
            return kept.noise.snapshot()
        return first.snapshot() if start == "seed" else fresh(first, task.seed, step, initial=False)

    def _pass(self, task: Task, noise: Noise, each: Pass, step: int) -> tuple[Iterate, Turns]:
        direction = partial(task.direction, step=step, rough=each.rough)
        turns = Turns(noise, direction, each.angle, self)
        watch = _watched(task)

        def seen(denoised: Tensor, sigma: float) -> None:
            watch(denoised, sigma)
            turns.see(denoised)

        return task.evaluate(noise, step, tape=turns, seen=seen), turns

    def _straight(self, task: Task, iterate: Iterate, first: int = 1) -> Iterator[Iterate]:
        """The initial noise turned between samplings, of which `iterate` is the plain one."""
        noise = Noise(iterate.noise.initial, iterate.noise.injected, "initial")
        optimizer = Projected(Rotation(angle=self.passes[0].angle), noise=self.part)
        update = optimizer.start(noise.leaves(), 0.0)
        for step in range(first, len(self.passes) + 1):
            update(partial(_directions, task, iterate), iterate.objective)
            iterate = task.evaluate(noise, step, seen=_watched(task))
            yield iterate


class Turns(Tape):
    """A tape whose draws are turned before they are used, and which holds them as they were used.

    gradient: a denoised prediction (B,C,...) -> the gradient of the reward there.
    """

    def __init__(
        self, noise: Noise, gradient: Callable[[Tensor], Tensor], angle: float, settings: Steer
    ):
        super().__init__(noise)
        self._gradient, self._settings = gradient, settings
        self._angle = torch.full((len(noise.initial),), math.radians(angle))
        self._denoised: Tensor | None = None
        self._direction: Tensor | None = None
        self.draws = 0
        self.has_gradient = False

    def see(self, denoised: Tensor) -> None:
        """The network's latest prediction; decoded only if a draw follows."""
        self._denoised, self._direction = denoised, None

    @torch.no_grad()
    def draw(self, host: Callable[[], Tensor]) -> Tensor:
        leaf = super().draw(host)
        self.draws += 1
        if self._denoised is None:
            return leaf  # nothing is predicted yet
        if self._direction is None:
            gradient = self._gradient(self._denoised.detach())
            self.has_gradient = self.has_gradient or bool(gradient.any())
            (self._direction,) = self._settings.whiten([gradient.to(leaf)])
        settings = self._settings
        turned = rotated(leaf, self._direction, self._angle, settings.project)
        if settings.part is not None:
            (turned,) = settings.part.at([leaf])([turned])
        leaf.copy_(turned)
        return leaf


def _directions(task: Task, iterate: Iterate) -> list[Tensor]:
    gradient = task.direction(iterate.latent, iterate.step)
    _insist(bool(gradient.any()))
    return [gradient]


def _insist(has_gradient: bool) -> None:
    if not has_gradient:
        raise NoGradientError(
            "The reward has no gradient at what this sampling predicts: it does not change with "
            "the picture (a constant reward, or a target that is reached)."
        )


class _Enough(Exception):
    """The task has had enough in the middle of a sampling."""


def _watched(task: Task) -> Callable[[Tensor, float], None]:
    def seen(denoised: Tensor, sigma: float) -> None:
        del denoised, sigma
        if task.enough():
            raise _Enough

    return seen


def polished(
    noise: Noise, regularizer: Regularizer, steps: int = 10, learning_rate: float = 0.005
) -> Noise:
    """The noise after a few steps of Adam on the regularizer alone, all of its tensors."""
    moved = Noise(noise.initial, noise.injected)
    update = Adam().start(moved.leaves(), learning_rate)
    for _ in range(steps):
        with torch.enable_grad():
            score = regularizer(moved)
        if not score.requires_grad or not bool((score < 0).any()):
            break
        pulled = torch.autograd.grad(score.sum(), moved.leaves())
        update(partial(list, pulled), score.detach())
    return Noise(moved.initial, moved.injected, noise.scope)

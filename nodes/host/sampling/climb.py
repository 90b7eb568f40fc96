"""A climb in the host: where it starts, each iterate shown and kept, why it ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.ascent import Iterate
from ....dno.checks import NoGradientError, NonFiniteError, PictureError
from ....dno.estimate import Estimated
from ....dno.gradient import Problem
from ....dno.history import History
from ....dno.method import Ascent, Method, Task
from ....dno.noise import Noise
from ....dno.objective import Objective, TermError
from ....dno.optimizers import Adam, Optimizer
from ....dno.parts import Part, limited
from ....dno.stopping import StoppingRule, TimeBudget, first_reason
from ..picture.directions import Directions
from ..picture.finite import overflowed
from ..progress import Progress, line, say
from .render import Origin, Sampling
from .start import Start, best_start

STOPPING_ERRORS = (NonFiniteError, NoGradientError, TermError)
HOST_ERRORS = (management.InterruptProcessingException, management.OOM_EXCEPTION)
OUT_OF_MEMORY = (
    "DNO ran out of memory: choose memory 'least' in DNO Options, a smaller latent or batch, or a "
    "smaller decoder such as TAESD."
)
NOTHING_TO_MOVE = (
    "There is no noise to optimise: {}, and this sampler draws none by itself. Use an ancestral "
    "or SDE sampler, or {}."
)
MOST_AT_ONCE = 16  # perturbed samplings in one batch


@dataclass(frozen=True)
class Settings:
    """How the noise climbs, from the best of `best_of` seeds.

    method: what is done; without one, gradient ascent with the four settings above it and `clip`.
    part: what of the noise may move. carried: which steps of the network carry the gradient,
    "all", "first" or "last N". strict: refuse an inexact gradient. memory: one of levels.MEMORY.
    directions: what steering decodes with, one of directions.CHOICES; or `directions_vae`, if set.
    note: what the user is told about all this.
    """

    iterations: int = 50
    best_of: int = 1
    learning_rate: float = 0.01
    clip: float = 1.0
    scope: str = "all"
    optimizer: Optimizer = field(default_factory=Adam)
    gradient: Estimated | None = None
    stopping: tuple[StoppingRule, ...] = ()
    memory: str = "automatic"
    method: Method | None = None
    part: Part = Part()
    carried: str = "all"
    strict: bool = False
    directions: str = "automatic"
    directions_vae: object = None
    note: str = ""

    @property
    def way(self) -> Method:
        ascent = Ascent(self.optimizer, self.learning_rate, self.iterations, self.clip)
        return limited(self.method or ascent, self.part)

    @property
    def differentiates(self) -> bool:
        """Whether the network's gradient is needed."""
        blind = isinstance(self.gradient, Estimated) and self.gradient.method == "zeroth order"
        return self.way.differentiates and not (blind and isinstance(self.way, Ascent))


@dataclass(frozen=True)
class Climbed:
    """What a climb left. denoised: of each image's best the last prediction of x0 (B,C,...)."""

    history: History
    latent: Tensor
    denoised: Tensor
    origin: Origin


class Climb:
    """One run of the noise. draw: the host's noise of a seed, for `best_of`."""

    def __init__(
        self,
        sampling: Sampling,
        decode: Callable[[Tensor], Tensor],
        objective: Objective,
        settings: Settings,
        draw: Callable[[int], Tensor],
        directions: Directions | None = None,
    ):
        self._directions = directions
        self._sampling, self._decode, self._draw = sampling, decode, draw
        self._objective, self._settings = objective, settings
        self.history = History()
        self._predicted: Tensor | None = None  # the last denoised prediction of the last rendering

    def run(self, progress: Progress) -> Climbed:
        """Climb, show and keep. Errors of the host go on; others end it if a picture is there."""
        history, way = self.history, self._settings.way
        denoised: Tensor | None = None
        recorded = torch.zeros(len(self._sampling.noise), dtype=torch.bool)
        start = self._start(progress)
        history.start, history.seconds_before = start.words, start.seconds
        self._sampling.carry(self._settings.carried, self._settings.strict)
        sampling = self._sampling.from_origin(start.origin)
        iterates = self._iterates(sampling, start.noise, progress)
        try:
            for iterate in iterates:
                history.add(iterate, progress.seconds, self._spent(sampling, recorded))
                better = history.best.step == iterate.step
                denoised = _rows(better, self._predicted_of(iterate), denoised)
                recorded[better] = sampling.levels.rounded
                progress.picture(iterate.image, self._words())
                history.stop_reason = first_reason(self._settings.stopping, history) or ""
                if history.stop_reason:
                    break
                management.throw_exception_if_processing_interrupted()
                self._learn(iterate)
                if way.climbs_after(iterate.step):
                    progress.next_iteration()
                else:
                    progress.next_sampling()
        except STOPPING_ERRORS as error:
            self._end_early(error)
        finally:
            iterates.close()
        over = math.isfinite(self._budget()) and history.records[-1].step < way.iterations
        if over and not history.stop_reason:
            history.stop_reason = f"time budget of {self._budget():g} s used"
        latent = history.best.latent
        if recorded.any():  # recorded calls may run other kernels than a plain sampling does
            latent = self._replayed(sampling)
        words = [self._words(), *sampling.warnings, *filter(None, [history.stop_reason])]
        progress.finish(history.best.image, "\n".join(words))
        return Climbed(history, latent, denoised, start.origin)

    def _spent(self, sampling: Sampling, recorded: Tensor) -> float:
        """Evaluations per image if this iterate were the last; a recorded best is sampled again."""
        again = sampling.levels.rounded or bool(recorded.any())
        return sampling.evaluations.pictures / len(recorded) + again * sampling.steps

    def _start(self, progress: Progress) -> Start:
        noise, settings = self._sampling.noise, self._settings
        scope = settings.scope if noise.any() else "injected"  # what is switched off stays off
        if scope != settings.scope and settings.scope == "initial":
            raise ValueError(NOTHING_TO_MOVE.format("noise is switched off", "switch it on"))
        count = settings.best_of if noise.any() else 1
        given = Noise(noise, scope=scope)
        return best_start(
            self._sampling, self._decode, self._objective, given, self._draw, count, progress
        )

    def _iterates(self, sampling: Sampling, noise: Noise, progress: Progress) -> Iterator[Iterate]:
        def render(noise: Noise, **options: object) -> Tensor:
            latent = sampling.render(noise, callback=self._predict, **options)
            self._insist_on_leaves(noise)
            return latent

        task = Task(
            Problem(render, self._decode, self._objective),
            noise,
            directions=self._directions,
            gradient=self._settings.gradient,
            enough=lambda: bool(self.history.records) and progress.seconds > self._budget(),
            at_once=self._at_once(),
            mended=lambda error: _out_of_memory(error) and sampling.levels.lower(),
            seed=sampling.origin.seed or 0,
        )
        return self._settings.way.iterates(task)

    def _at_once(self) -> int:
        """How many perturbed samplings fit in one batch."""
        noise = self._sampling.noise
        each = self._sampling.memory_required([2 * len(noise), *noise.shape[1:]])
        fitting = int(management.get_free_memory(noise.device) / 2 / max(each, 1))
        return min(max(fitting, 1), MOST_AT_ONCE)

    def _budget(self) -> float:
        """Seconds that the run may take, between two evaluations of a sampling too."""
        rules = self._settings.stopping
        return min([r.seconds for r in rules if isinstance(r, TimeBudget)], default=math.inf)

    def _words(self) -> str:
        settings = self._settings
        told = line(self.history, settings.way.iterations)
        return "\n".join(filter(None, [settings.note, told, getattr(self._decode, "note", "")]))

    def _learn(self, iterate: Iterate) -> None:
        if self._directions is not None:
            self._directions.learn(iterate.latent, iterate.image)

    def _predict(self, step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        self._predicted = denoised.detach()

    def _predicted_of(self, iterate: Iterate) -> Tensor:
        found = self._predicted
        return iterate.latent if found is None or found.shape != iterate.latent.shape else found

    def _insist_on_leaves(self, noise: Noise) -> None:
        if self._settings.way.iterations and not noise.leaves():
            off = not noise.initial.any()
            why = "noise is switched off" if off else "the scope is 'injected'"
            raise ValueError(NOTHING_TO_MOVE.format(why, "switch it on" if off else "set 'all'"))

    def _end_early(self, error: Exception) -> None:
        """Keep the best so far if there is one. An error of the host stays what it is."""
        if isinstance(error.__cause__, HOST_ERRORS):
            raise error.__cause__
        if isinstance(error, PictureError):
            error = PictureError(f"{error} {overflowed(getattr(self._decode, 'vae', None))}")
        if not self.history.records:
            raise error
        self.history.stop_reason = str(error)
        logging.warning("DNO stopped early and keeps the best so far. %s", error)

    @torch.no_grad()
    def _replayed(self, sampling: Sampling) -> Tensor:
        return sampling.render(self.history.best.noise.snapshot(sampling.noise.device))


def _rows(rows: Tensor, new: Tensor, old: Tensor | None) -> Tensor:
    """`new` in the images where `rows` (B,) is true, else `old`; in ordinary memory."""
    if old is None:
        return new.cpu()
    return torch.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new.cpu(), old)


def _out_of_memory(error: BaseException | None) -> bool:
    cause = error.__cause__ if isinstance(error, TermError) else error
    return isinstance(cause, management.OOM_EXCEPTION)


def tell_out_of_memory() -> None:
    say(OUT_OF_MEMORY)
    logging.error(OUT_OF_MEMORY)

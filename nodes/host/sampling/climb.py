"""A climb in the host: where it starts, each iterate shown and kept, why it ends."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.ascent import Iterate
from ....dno.checks import PictureError
from ....dno.gradient import Problem
from ....dno.history import History
from ....dno.method import CLIMBED, Task
from ....dno.noise import Noise, Tape
from ....dno.objective import Objective
from ....dno.pace import Pace
from ....dno.stopping import TimeBudget, first_reason
from ...drawing.strip import Standing
from ..keeping import REASON, Keeping, KeptOnRequest
from ..picture.directions import Directions
from ..picture.finite import overflowed
from ..progress import Progress
from ..telling import Telling
from .endings import HOST_ERRORS, OUT_OF_MEMORY, STOPPING_ERRORS, out_of_memory
from .given import Given
from .render import Origin, Sampling
from .replay import Draws, Source
from .settings import Settings
from .start import Start, best_start

NOTHING_TO_MOVE = (
    "There is no noise to optimise: {}, and this sampler draws none by itself. Use an ancestral "
    "or SDE sampler, or {}."
)
MOST_AT_ONCE = 16  # perturbed samplings in one batch


@dataclass(frozen=True)
class Climbed:
    """What a climb left. denoised: of each image's best the last prediction of x0 (B,C,...)."""

    history: History
    latent: Tensor
    denoised: Tensor
    origin: Origin


class Climb:
    """One run of the noise.

    draw: the host's noise of a seed, for `best_of`. draws: of an earlier run, to go on from.
    keeping: how the user ends it.
    """

    def __init__(
        self,
        sampling: Sampling,
        decode: Callable[[Tensor], Tensor],
        objective: Objective,
        settings: Settings,
        draw: Callable[[int], Tensor],
        draws: Draws,
        keeping: Keeping,
        directions: Directions | None = None,
    ):
        self._directions, self._keeping = directions, keeping
        self._given = Given(draws, sampling)
        self._sampling, self._decode, self._draw = sampling, decode, draw
        self._objective, self._settings = objective, settings
        self.history, way = History(), settings.way
        pace = Pace(way.kind, way.iterations)
        self._telling = Telling(self.history, settings.note, pace, way.iterations)
        self._predicted: Tensor | None = None  # the last denoised prediction of the last rendering

    def run(self, progress: Progress) -> Climbed:
        """Climb, show and keep. Errors of the host go on; others end it if a picture is there."""
        history, way = self.history, self._settings.way
        denoised: Tensor | None = None
        recorded = torch.zeros(len(self._sampling.noise), dtype=torch.bool)
        start = self._start(progress)
        history.start, history.seconds_before = start.words, start.seconds
        history.source = Source(start.origin, self._sampling.process_out)
        self._sampling.carry(self._settings.carried, self._settings.strict)
        sampling = self._sampling.from_origin(start.origin)
        iterates = self._iterates(sampling, start.noise, progress)
        try:
            for iterate in iterates:
                history.add(iterate, progress.seconds, self._spent(sampling, recorded))
                better = history.best.step == iterate.step
                denoised = _rows(better, self._predicted_of(iterate), denoised)
                recorded[better] = sampling.levels.rounded
                self._heard(sampling)
                progress.picture(iterate.image, *self._now())
                history.stop_reason = first_reason(self._settings.stopping, history) or ""
                if history.stop_reason:
                    break
                self._keeping.begin()
                self._keeping.check()
                self._learn(iterate)
                if way.kind(iterate.step + 1) == CLIMBED:
                    progress.next_iteration()
                else:
                    progress.next_sampling()
        except STOPPING_ERRORS as error:
            self._end_early(error)
        finally:
            iterates.close()
        if history.stop_reason == OUT_OF_MEMORY:  # and with the error its graphs are gone
            management.soft_empty_cache()
        history.stop_reason = history.stop_reason or self._used_up()
        latent = self._replayed(sampling) if recorded.any() else history.best.latent
        more = (self._decoding, *sampling.warnings, history.stop_reason)
        progress.finish(history.best.image, *self._telling.ended(*more))
        return Climbed(history, latent, denoised, start.origin)

    def _used_up(self) -> str:
        """The reason, if it ended in the middle of an iteration without an error."""
        early = self.history.records[-1].step < self._settings.way.iterations
        over = early and math.isfinite(self._budget())
        return f"time budget of {self._budget():g} s used" if over else ""

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
        given = self._given.noise(noise, scope)
        parts = (self._decode, self._objective, given, self._draw, count, progress)
        return best_start(self._given.begun(self._sampling), *parts)

    def _iterates(self, sampling: Sampling, noise: Noise, progress: Progress) -> Iterator[Iterate]:
        def render(noise: Noise, tape: Tape | None = None, **options: object) -> Tensor:
            tape = tape or noise.tape()
            latent = sampling.render(noise, tape=tape, callback=self._predict, **options)
            self._given.rendered(noise, tape, sampling)
            self._insist_on_leaves(noise)
            return latent

        task = Task(
            Problem(render, self._decode, self._objective, self._at_once),
            noise,
            directions=self._directions,
            roughly=self._directions and self._directions.roughly,
            gradient=self._settings.gradient,
            enough=lambda: bool(self.history.records) and progress.seconds > self._budget(),
            mended=lambda error: out_of_memory(error) and sampling.levels.lower(),
            wrong=sampling.levels.differed,
            seed=self._given.seed(sampling),
        )
        return self._settings.way.iterates(task)

    def _at_once(self) -> int:
        """How many perturbed samplings fit in one batch, now that records wait."""
        noise = self._sampling.noise
        each = self._sampling.memory_required([2 * len(noise), *noise.shape[1:]])
        fitting = int(management.get_free_memory(noise.device) / 2 / max(each, 1))
        return min(max(fitting, 1), MOST_AT_ONCE)

    def _budget(self) -> float:
        """Seconds that the run may take, between two evaluations of a sampling too."""
        rules = self._settings.stopping
        return min([r.seconds for r in rules if isinstance(r, TimeBudget)], default=math.inf)

    def _heard(self, sampling: Sampling) -> None:
        records = self.history.records
        before = records[-2].seconds if len(records) > 1 else self.history.seconds_before
        self._telling.heard(records[-1].seconds - before, sampling.levels.words)

    def _now(self) -> tuple[str, Standing]:
        return self._telling.now(self._budget(), self._decoding)

    @property
    def _decoding(self) -> str:
        """What the decoder has to tell."""
        return getattr(self._decode, "note", "")

    def _learn(self, iterate: Iterate) -> None:
        if self._directions is not None:
            self._directions.learn(iterate.latent, iterate.image)

    def _predict(self, step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        self._predicted = denoised.detach()

    def _predicted_of(self, iterate: Iterate) -> Tensor:
        denoised = self._predicted
        if denoised is None or denoised.shape != iterate.latent.shape:
            return iterate.latent
        return denoised

    def _insist_on_leaves(self, noise: Noise) -> None:
        if self._settings.way.iterations and not noise.leaves():
            off = not noise.initial.any()
            why = "noise is switched off" if off else "the scope is 'injected'"
            raise ValueError(NOTHING_TO_MOVE.format(why, "switch it on" if off else "set 'all'"))

    def _end_early(self, error: BaseException) -> None:
        """Keep the best so far if there is one. An interrupt of the host stays what it is."""
        of_host = error.__cause__ if isinstance(error.__cause__, HOST_ERRORS) else error
        if self._keeping.keeps(of_host):
            self.history.stop_reason = REASON
            return
        if isinstance(of_host, management.OOM_EXCEPTION) and self.history.records:
            error = MemoryError(OUT_OF_MEMORY)
        elif isinstance(of_host, HOST_ERRORS):
            raise of_host
        if isinstance(error, PictureError):
            error = PictureError(f"{error} {overflowed(getattr(self._decode, 'vae', None))}")
        if not self.history.records:
            raise error
        self.history.stop_reason = str(error)
        logging.warning("DNO stopped early and keeps the best so far. %s", error)

    @torch.no_grad()
    def _replayed(self, sampling: Sampling) -> Tensor:
        """Recorded calls may run other kernels than a plain sampling does."""
        best = self.history.best
        try:
            return sampling.render(best.noise.snapshot(sampling.noise.device))
        except (KeptOnRequest, *HOST_ERRORS) as error:  # the last bits are not worth the picture
            self._end_early(error)
            return best.latent


def _rows(rows: Tensor, new: Tensor, old: Tensor | None) -> Tensor:
    """`new` in the images where `rows` (B,) is true, else `old`; in ordinary memory."""
    if old is None:
        return new.cpu()
    return torch.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new.cpu(), old)

"""A climb in the host: where it starts, each iterate shown and kept, why it ends."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.ascent import Iterate, ascend
from ....dno.checks import NoGradientError, NonFiniteError, PictureError
from ....dno.estimate import Estimated
from ....dno.gradient import Exact, Gradient
from ....dno.history import Film, History
from ....dno.noise import Noise
from ....dno.objective import Objective, TermError
from ....dno.optimizers import Adam, Optimizer
from ....dno.stopping import StoppingRule, first_reason
from ..picture.finite import not_finite
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
    "There is no noise to optimise: {}, and this sampler draws none by itself. Use an ancestral or "
    "SDE sampler, or {}."
)
MOST_AT_ONCE = 16  # perturbed samplings in one batch


@dataclass(frozen=True)
class Settings:
    """How the noise climbs, from the best of `best_of` seeds.

    Recorded calls may use `record_share` of the free memory.
    """

    iterations: int = 50
    best_of: int = 1
    learning_rate: float = 0.01
    clip: float = 1.0
    scope: str = "all"
    optimizer: Optimizer = field(default_factory=Adam)
    gradient: Estimated | None = None
    stopping: tuple[StoppingRule, ...] = ()
    record_share: float = 0.5
    film_bytes: int = 256 * 2**20


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
    ):
        self._sampling, self._decode, self._draw = sampling, decode, draw
        self._objective, self._settings = objective, settings
        self.history = History(Film(settings.film_bytes))
        self._predicted: Tensor | None = None  # the last denoised prediction of the last rendering

    def run(self, progress: Progress) -> Climbed:
        """Climb, show and keep. Errors of the host go on; others end it if a picture is there."""
        history, iterations = self.history, self._settings.iterations
        denoised: Tensor | None = None
        recorded = torch.zeros(len(self._sampling.noise), dtype=torch.bool)
        start = self._start(progress)
        history.start, history.seconds_before = start.words, start.seconds
        sampling = self._sampling.from_origin(start.origin)
        iterates = self._iterates(sampling, start.noise)
        try:
            for iterate in iterates:
                history.add(iterate, progress.seconds, self._spent(sampling, recorded))
                better = history.best.step == iterate.step
                denoised = _rows(better, self._predicted_of(iterate), denoised)
                recorded[better] = sampling.recomputer.recording
                progress.picture(iterate.image, line(history, iterations))
                history.stop_reason = first_reason(self._settings.stopping, history) or ""
                if history.stop_reason:
                    break
                management.throw_exception_if_processing_interrupted()
                progress.next_iteration()
        except STOPPING_ERRORS as error:
            self._end_early(error)
        finally:
            iterates.close()
        latent = history.best.latent
        if recorded.any():  # recorded calls may run other kernels than a plain sampling does
            latent = self._replayed(sampling)
        words = [line(history, iterations), *filter(None, [history.stop_reason])]
        progress.finish(history.best.image, "\n".join(words))
        return Climbed(history, latent, denoised, start.origin)

    def _spent(self, sampling: Sampling, recorded: Tensor) -> float:
        """Evaluations per image if this iterate were the last; a recorded best is sampled again."""
        again = sampling.recomputer.recording or bool(recorded.any())
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

    def _iterates(self, sampling: Sampling, noise: Noise) -> Iterator[Iterate]:
        settings = self._settings

        def render(noise: Noise) -> Tensor:
            latent = sampling.render(noise, callback=self._predict)
            self._insist_on_leaves(noise)
            return latent

        return ascend(
            render,
            self._decode,
            self._objective,
            noise,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            iterations=settings.iterations,
            clip=settings.clip,
            gradient=self._gradient(),
        )

    def _gradient(self) -> Gradient:
        """As set; else exact, or Hybrid-2 if a reward has no gradient."""
        if self._settings.gradient is None and self._objective.differentiable:
            return Exact()
        estimated = self._settings.gradient or Estimated()
        if estimated.at_once:
            return estimated
        noise = self._sampling.noise
        each = self._sampling.memory_required([2 * len(noise), *noise.shape[1:]])
        fitting = int(management.get_free_memory(noise.device) / 2 / max(each, 1))
        return replace(estimated, at_once=min(max(fitting, 1), MOST_AT_ONCE))

    def _predict(self, step: int, denoised: Tensor, x: Tensor, steps: int) -> None:
        self._predicted = denoised.detach()

    def _predicted_of(self, iterate: Iterate) -> Tensor:
        found = self._predicted
        return iterate.latent if found is None or found.shape != iterate.latent.shape else found

    def _insist_on_leaves(self, noise: Noise) -> None:
        if self._settings.iterations and not noise.leaves():
            off = not noise.initial.any()
            why = "noise is switched off" if off else "the scope is 'injected'"
            raise ValueError(NOTHING_TO_MOVE.format(why, "switch it on" if off else "set 'all'"))

    def _end_early(self, error: Exception) -> None:
        """Keep the best so far if there is one. An error of the host stays what it is."""
        if isinstance(error.__cause__, HOST_ERRORS):
            raise error.__cause__
        if isinstance(error, PictureError):
            mend = not_finite("picture", getattr(self._decode, "vae", None)).partition(": ")[2]
            error = PictureError(f"{error} {mend[0].upper()}{mend[1:]}")
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


def tell_out_of_memory() -> None:
    say(OUT_OF_MEMORY)
    logging.error(OUT_OF_MEMORY)

"""Direct Noise Optimization as a ComfyUI sampler, in place of the one that it differentiates."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace

import comfy.model_management as management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ....dno.ascent import Iterate, NoGradientError, NonFiniteError, ascend
from ....dno.estimate import Estimated
from ....dno.gradient import Exact, Gradient
from ....dno.history import Film, History
from ....dno.noise import Noise
from ....dno.objective import Objective, TermError
from ....dno.optimizers import Adam, Optimizer
from ....dno.stopping import StoppingRule, first_reason
from ..judges.reward_models import networks_in
from ..picture.decode import Decoder, decode_memory, recomputed_blocks
from ..progress import Progress, line, say
from .guards import refuse_cut_gradients, step_cache, training_kernels
from .job import check_vae
from .ordinary import ordinary, ordinary_modules
from .render import Sampling
from .start import best_start

STOPPING_ERRORS = (NonFiniteError, NoGradientError, TermError)
OUT_OF_MEMORY = (
    "DNO ran out of memory: choose memory 'least' in DNO Options, a smaller latent or batch, or a "
    "smaller decoder such as TAESD."
)
MOST_AT_ONCE = 16  # perturbed samplings in one batch
HOST_ERRORS = (management.InterruptProcessingException, management.OOM_EXCEPTION)


@dataclass(frozen=True)
class Settings:
    """How the noise climbs, from the best of `best_of` seeds.

    memory: a level of `levels.MEMORY`.
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
    film_bytes: int = 256 * 2**20


class Aligner(comfy.samplers.Sampler):
    """`guider.sample(noise, latent, Aligner(sampler, ...), sigmas)` aligns.

    Loading, conditioning, CFG, hooks, masks and cleanup stay ComfyUI's, and the model lives through
    every iteration and its backward.

    draw: the host's noise of a seed, (B,C,...) on the CPU, for `best_of`.

    After the run `history` holds what happened and `seed` what its draws come from; the returned
    latent is each image's best.
    """

    def __init__(
        self,
        sampler: comfy.samplers.Sampler,
        vae,
        objective: Objective,
        settings: Settings,
        draw: Callable[[int], Tensor] | None = None,
    ):
        self.sampler, self.vae, self._draw = sampler, vae, draw
        self.objective, self.settings = objective, settings
        self.history: History | None = None
        self.seed: int | None = None

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        check_latent(noise)
        check_vae(self.vae, model_wrap.model_patcher)
        cached = step_cache(extra_args.get("model_options", {}))
        if cached:
            logging.warning("DNO: the step cache %r makes gradients inexact; take it out.", cached)
        patchers = [model_wrap.model_patcher, *model_wrap.loaded_models]
        judges = networks_in(self.objective)
        management.load_models_gpu(
            [*patchers, self.vae.patcher, *(judge.patcher for judge in judges)],
            memory_required=_gradient_memory(model_wrap, self.vae, noise),
        )
        modules = [patcher.model for patcher in patchers] + [self.vae.first_stage_model, *judges]
        conds = model_wrap.conds
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(training_kernels())
            resident = stack.enter_context(
                ordinary_modules(
                    module for module in modules if isinstance(module, torch.nn.Module)
                )
            )
            network = model_wrap.inner_model.diffusion_model
            stack.enter_context(refuse_cut_gradients(network))
            stack.enter_context(self._decoding(noise))
            stack.callback(setattr, model_wrap, "conds", conds)
            model_wrap.conds = ordinary(conds)
            plain = [ordinary(t) for t in (sigmas, noise, latent_image, denoise_mask)]
            sampling = Sampling(self.sampler, model_wrap, extra_args, plain, resident)
            stack.enter_context(sampling.levels)
            latent = self._climb(sampling, model_wrap)
        self._report(callback, latent, len(sigmas) - 1)
        return latent

    def _climb(self, sampling: Sampling, model_wrap) -> Tensor:
        settings, history = self.settings, History(Film(self.settings.film_bytes))
        self.history = history
        candidates = settings.best_of if settings.best_of > 1 else 0
        progress = Progress(candidates + settings.iterations + 1, sampling.steps)
        sampling.begin(progress, settings.memory, decode_memory(self.vae, sampling.noise, True))
        iterates = self._iterates(sampling, model_wrap, progress, history)
        recorded = torch.zeros(len(sampling.noise), dtype=torch.bool)
        try:
            for iterate in iterates:
                better = history.add(iterate, progress.seconds)
                recorded[better] = sampling.levels.rounded
                progress.picture(iterate.image, line(history, settings.iterations))
                history.stop_reason = first_reason(settings.stopping, history) or ""
                if history.stop_reason:
                    break
                management.throw_exception_if_processing_interrupted()
                progress.next_iteration()
        except management.OOM_EXCEPTION:
            say(OUT_OF_MEMORY)
            logging.error(OUT_OF_MEMORY)
            raise
        except STOPPING_ERRORS as error:
            _reraise_host(error)
            if not history.records:
                raise
            history.stop_reason = str(error)
            logging.warning("DNO stopped early and keeps the best so far. %s", error)
        finally:
            iterates.close()
        self.seed = sampling.seed
        text = line(history, settings.iterations)
        progress.finish(history.best_image, f"{text}\n{history.stop_reason}".strip())
        if recorded.any():  # recorded calls may run other kernels than a plain sampling does
            with torch.no_grad():
                history.best_latent = sampling.render(history.best_noise)
        return history.best_latent

    def _iterates(
        self, sampling: Sampling, model_wrap, progress: Progress, history: History
    ) -> Iterator[Iterate]:
        settings = self.settings
        decode = Decoder(self.vae, model_wrap.inner_model.process_latent_out)
        given = Noise(sampling.noise, scope=settings.scope)
        draw = self._draw or (lambda seed: comfy.sample.prepare_noise(sampling.noise, seed))
        noise = best_start(
            sampling, decode, self.objective, given, draw, settings.best_of, progress, history
        )
        yield from ascend(
            sampling.render,
            decode,
            self.objective,
            noise,
            optimizer=settings.optimizer,
            learning_rate=settings.learning_rate,
            iterations=settings.iterations,
            clip=settings.clip,
            gradient=self._gradient(model_wrap, sampling.noise),
        )

    def _decoding(self, noise: Tensor) -> AbstractContextManager:
        """The decoder recorded as a whole where that leaves room, else block by block."""
        room = management.get_free_memory(noise.device) * 0.5
        roomy = decode_memory(self.vae, noise) < room
        return nullcontext() if roomy else recomputed_blocks(self.vae)

    def _gradient(self, model_wrap, noise: Tensor) -> Gradient:
        """As set; else exact, or Hybrid-2 if a reward has no gradient."""
        if self.settings.gradient is None and self.objective.differentiable:
            return Exact()
        estimated = self.settings.gradient or Estimated()
        if estimated.at_once:
            return estimated
        each = model_wrap.inner_model.memory_required([2 * len(noise), *noise.shape[1:]])
        fitting = int(management.get_free_memory(noise.device) / 2 / max(each, 1))
        return replace(estimated, at_once=min(max(fitting, 1), MOST_AT_ONCE))

    def _report(self, callback, latent: Tensor, steps: int) -> None:
        """Hand the best to the host's callback, which keeps it as the denoised output."""
        if callback is not None and steps > 0:
            callback(steps - 1, latent, latent, steps)


def check_latent(noise: Tensor) -> None:
    """Refuse what cannot be aligned yet, in a sentence."""
    if noise.ndim == 5 and noise.shape[2] > 1:
        raise ValueError(
            f"DNO aligns single images; this latent has {noise.shape[2]} frames: use a length of 1."
        )
    if noise.ndim not in (4, 5):
        raise ValueError(f"DNO aligns images, and this latent has shape {tuple(noise.shape)}.")


def _gradient_memory(model_wrap, vae, noise: Tensor) -> int:
    """Bytes to keep free: backward needs about three times what inference needs."""
    model = model_wrap.inner_model.memory_required([2 * noise.shape[0], *noise.shape[1:]])
    return max(int(3 * model), decode_memory(vae, noise, recomputed=True))


def _reraise_host(error: BaseException) -> None:
    """An interrupt or an out-of-memory inside a reward stays what it is."""
    if isinstance(error.__cause__, HOST_ERRORS):
        raise error.__cause__

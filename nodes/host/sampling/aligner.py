"""Direct Noise Optimization as a ComfyUI sampler, in place of the one that it differentiates."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import comfy.model_management as management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ....dno.history import History
from ....dno.objective import Objective
from .. import metadata
from ..compat import training
from ..described import climb
from ..judges.clip_vision import ComfyVision
from ..judges.reward_models import networks_in
from ..judges.scoring import scoring
from ..keeping import Keeping
from ..ordinary import ordinary, ordinary_modules
from ..picture.decode import Decoder
from ..picture.directions import Directions
from ..picture.small import hint
from ..progress import Progress
from .climb import Climb, Climbed
from .endings import tell_out_of_memory
from .guards import refuse_cut_gradients
from .job import check_latent, check_vae
from .needed import evaluation
from .render import Sampling
from .replay import Draws
from .settings import Settings
from .weights import Weights

DECODING_SHARE = 0.5  # of the free memory, that the decoder plans with


class Aligner(comfy.samplers.Sampler):
    """`guider.sample(noise, latent, Aligner(sampler, ...), sigmas)` aligns.

    Loading, conditioning, CFG, hooks, masks and cleanup stay ComfyUI's, and the model lives through
    every iteration and its backward. After the run `climbed` holds what happened; the returned
    latent is each image's best.

    draw: the host's noise of a seed, (B,C,...) on the CPU, for `best_of`. draws: of an earlier run,
    to go on from.
    """

    def __init__(
        self,
        sampler: comfy.samplers.Sampler,
        vae,
        objective: Objective,
        settings: Settings,
        draw: Callable[[int], Tensor] | None = None,
        draws: Draws | None = None,
    ):
        self.sampler, self.vae, self._draw, self._draws = sampler, vae, draw, draws or Draws()
        self.objective, self.settings = objective, settings
        self.climbed: Climbed | None = None
        self._weights = Weights()

    @property
    def history(self) -> History | None:
        return self.climbed.history if self.climbed else None

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
        modules = self._loaded(model_wrap, noise)
        conds = model_wrap.conds
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            stack.enter_context(training())
            resident = stack.enter_context(ordinary_modules(modules))
            if self.settings.differentiates:
                stack.enter_context(refuse_cut_gradients(model_wrap.inner_model.diffusion_model))
            stack.callback(setattr, model_wrap, "conds", conds)
            model_wrap.conds = ordinary(conds)
            plain = [ordinary(t) for t in (sigmas, noise, latent_image, denoise_mask)]
            stack.enter_context(self._fetching(modules))
            parts = (extra_args, plain, resident, self._weights)
            sampling = Sampling(self.sampler, model_wrap, *parts)
            stack.callback(sampling.origin.generators.restore)
            stack.enter_context(sampling.levels)
            self.climbed = self._climb(sampling, model_wrap)
        metadata.note(climb(self.objective, self.settings, self.climbed.history))
        latent = self.climbed.latent.to(noise.device)
        if callback is not None and len(sigmas) > 1:  # it keeps the denoised output
            denoised = self.climbed.denoised.to(noise.device)
            callback(len(sigmas) - 2, denoised, latent, len(sigmas) - 1)
        return latent

    @contextmanager
    def _fetching(self, modules: list[torch.nn.Module]) -> Iterator[None]:
        """Within, no weight that is cast is kept for backward, nor read from where it lay."""
        with ExitStack() as stack:
            stack.enter_context(self._weights.watched(modules))
            for judge in networks_in(self.objective):
                if isinstance(judge, ComfyVision):  # others are plain torch, and lie as a whole
                    stack.enter_context(judge.fetching(self._weights.of(judge)))
            yield

    def _decoder(self, vae, latent_out: Callable, room: float = math.inf, small="") -> Decoder:
        return Decoder(vae, latent_out, room, small, self._weights.of(vae.first_stage_model))

    def _climb(self, sampling: Sampling, model_wrap) -> Climbed:
        settings = self.settings
        draw = self._draw or (lambda seed: comfy.sample.prepare_noise(sampling.noise, seed))
        room = management.get_free_memory(sampling.noise.device) * DECODING_SHARE
        small = hint(model_wrap.model_patcher.get_model_object("latent_format"), self.vae)
        decode = self._decoder(self.vae, model_wrap.inner_model.process_latent_out, room, small)
        candidates = settings.best_of if settings.best_of > 1 else 0
        keeping, between = Keeping(settings.keep_on_cancel), self._between(decode, sampling.noise)
        progress = Progress(candidates + settings.way.iterations + 1, sampling.steps)
        sampling.plan(progress.watch, keeping.check, settings.memory, between)
        try:
            directions = self._directions(decode, model_wrap, sampling.noise)
            parts = (settings, draw, self._draws, keeping, directions)
            climb = Climb(sampling, decode, self.objective, *parts)
            with keeping:
                return climb.run(progress)
        except management.OOM_EXCEPTION:
            tell_out_of_memory()
            raise

    def _between(self, decode: Decoder, noise: Tensor) -> int:
        """Bytes that a picture takes with its score and their gradient, while records may wait."""
        decoding = decode.way_for(noise.shape).bytes
        if not self.settings.differentiates or self.settings.memory == "call":  # nothing waits
            return decoding
        picture = decode.picture_for(noise.shape)
        return decoding + scoring(self.objective, picture, torch.zeros_like(noise))

    def _loaded(self, model_wrap, noise: Tensor) -> list[torch.nn.Module]:
        """Have everything loaded that a run needs at once; the modules that gradients pass."""
        patchers = [model_wrap.model_patcher, *model_wrap.loaded_models]
        judges, vaes = networks_in(self.objective), self._vaes()
        beside = [part.patcher for part in (*vaes, *judges)]
        # Short of room, ComfyUI takes the others off and may fill the card with the model first.
        device = model_wrap.model_patcher.load_device
        later, first = (
            sum(patcher.model_size() for patcher in some if patcher.load_device == device)
            for some in (beside, patchers)
        )
        needed = self._needed(model_wrap, noise, first + later)
        management.load_models_gpu(
            [*patchers, *beside], memory_required=needed, minimum_memory_required=needed + later
        )
        parts = [*(vae.first_stage_model for vae in vaes), *judges]
        if self.settings.differentiates:  # who is only evaluated stays as it is: compiled and all
            parts = [patcher.model for patcher in patchers] + parts
        return [module for module in parts if isinstance(module, torch.nn.Module)]

    def _needed(self, model_wrap, noise: Tensor, weights: int) -> int:
        """Bytes beside the weights: the larger of an evaluation and a picture, with backward."""
        model, device = model_wrap.inner_model, model_wrap.model_patcher.load_device
        picture = Decoder(self.vae, model.process_latent_out).memory(noise.shape)
        if not self.settings.differentiates:
            plain = model.memory_required([2 * noise.shape[0], *noise.shape[1:]])
            return max(int(plain), picture)
        room = management.get_total_memory(device) - management.extra_reserved_memory() - weights
        return max(evaluation(model_wrap, noise.shape, self.settings.memory, room), picture)

    def _vaes(self) -> list:
        """The VAE, and the one that steering decodes with if that is another one."""
        other = self.settings.directions_vae
        return [self.vae] if other is None or other is self.vae else [self.vae, other]

    def _directions(self, decode: Decoder, model_wrap, noise: Tensor) -> Directions:
        inner, other = model_wrap.inner_model, self.settings.directions_vae
        if other is not None:
            check_vae(other, model_wrap.model_patcher)
            decode = self._decoder(other, inner.process_latent_out)
            return Directions("VAE", decode, True, None)
        room = management.get_free_memory(noise.device) * DECODING_SHARE
        roomy = decode.memory(noise.shape) < room
        latent_format = model_wrap.model_patcher.get_model_object("latent_format")
        return Directions(self.settings.directions, decode, roomy, latent_format)

"""Direct Noise Optimization as a ComfyUI sampler, in place of the one that it differentiates."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext

import comfy.model_management as management
import comfy.sample
import comfy.samplers
import torch
from torch import Tensor

from ....dno.history import History
from ....dno.objective import Objective
from .. import metadata
from ..described import climb
from ..judges.reward_models import networks_in
from ..picture.decode import Decoder, decode_memory, recomputed_blocks
from ..progress import Progress
from .climb import Climb, Climbed, Settings, tell_out_of_memory
from .guards import refuse_cut_gradients, training_kernels
from .job import check_latent, check_vae
from .ordinary import ordinary, ordinary_modules
from .render import Sampling

DECODE_SHARE = 0.5  # of the free memory, within which a decoder is recorded as a whole


class Aligner(comfy.samplers.Sampler):
    """`guider.sample(noise, latent, Aligner(sampler, ...), sigmas)` aligns.

    Loading, conditioning, CFG, hooks, masks and cleanup stay ComfyUI's, and the model lives through
    every iteration and its backward. After the run `climbed` holds what happened; the returned
    latent is each image's best.

    draw: the host's noise of a seed, (B,C,...) on the CPU, for `best_of`.
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
        self.climbed: Climbed | None = None

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
            stack.enter_context(training_kernels())
            resident = stack.enter_context(ordinary_modules(modules))
            stack.enter_context(refuse_cut_gradients(model_wrap.inner_model.diffusion_model))
            stack.enter_context(self._decoding(noise))
            stack.callback(setattr, model_wrap, "conds", conds)
            model_wrap.conds = ordinary(conds)
            plain = [ordinary(t) for t in (sigmas, noise, latent_image, denoise_mask)]
            sampling = Sampling(self.sampler, model_wrap, extra_args, plain, resident)
            stack.callback(sampling.origin.generators.restore)
            stack.enter_context(sampling.levels)
            self.climbed = self._climb(sampling, model_wrap)
        metadata.note(climb(self.objective, self.settings, self.climbed.history))
        latent = self.climbed.latent.to(noise.device)
        if callback is not None and len(sigmas) > 1:  # it keeps the denoised output
            denoised = self.climbed.denoised.to(noise.device)
            callback(len(sigmas) - 2, denoised, latent, len(sigmas) - 1)
        return latent

    def _climb(self, sampling: Sampling, model_wrap) -> Climbed:
        settings = self.settings
        draw = self._draw or (lambda seed: comfy.sample.prepare_noise(sampling.noise, seed))
        decode = Decoder(self.vae, model_wrap.inner_model.process_latent_out)
        candidates = settings.best_of if settings.best_of > 1 else 0
        progress = Progress(candidates + settings.iterations + 1, sampling.steps)
        reserved = decode_memory(self.vae, sampling.noise, recomputed=True)
        sampling.plan(progress.watch, settings.memory, reserved)
        try:
            return Climb(sampling, decode, self.objective, settings, draw).run(progress)
        except management.OOM_EXCEPTION:
            tell_out_of_memory()
            raise

    def _loaded(self, model_wrap, noise: Tensor) -> list[torch.nn.Module]:
        """Have everything loaded that a climb needs at once; the modules of it."""
        patchers = [model_wrap.model_patcher, *model_wrap.loaded_models]
        judges = networks_in(self.objective)
        model = model_wrap.inner_model.memory_required([2 * noise.shape[0], *noise.shape[1:]])
        management.load_models_gpu(
            [*patchers, self.vae.patcher, *(judge.patcher for judge in judges)],
            # backward needs about three times what inference needs
            memory_required=max(int(3 * model), decode_memory(self.vae, noise, recomputed=True)),
        )
        found = [patcher.model for patcher in patchers] + [self.vae.first_stage_model, *judges]
        return [module for module in found if isinstance(module, torch.nn.Module)]

    def _decoding(self, noise: Tensor) -> AbstractContextManager:
        """The decoder recorded as a whole where that leaves room, else block by block."""
        room = management.get_free_memory(noise.device) * DECODE_SHARE
        roomy = decode_memory(self.vae, noise) < room
        return nullcontext() if roomy else recomputed_blocks(self.vae)

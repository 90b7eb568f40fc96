"""One guider's sampling as a differentiable function of its noise."""

from __future__ import annotations

import copy

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.noise import Noise
from ..progress import Progress
from .guards import differentiable_options
from .levels import Levels, block_moment
from .twins import Twins


class Sampling:
    """One guider's sampling as a differentiable function of its noise, run again and again.

    tensors: sigmas, noise, latent image and denoise mask, ordinary ones.
    """

    def __init__(self, sampler, model_wrap, extra_args: dict, tensors, resident=frozenset()):
        self.sigmas, self.noise, self.latent_image, self.denoise_mask = tensors
        self.steps = len(self.sigmas) - 1
        self.levels = _levels(model_wrap, resident, self.noise.device)
        self.seed: int | None = extra_args.get("seed")  # of what the sampler draws
        self._model = model_wrap
        options = differentiable_options(extra_args.get("model_options", {}), self._calc_cond_batch)
        self._extra_args = {**extra_args, "model_options": options}
        self._twins = Twins()
        self._sampler = differentiable(sampler, self._twins)
        # ddim draws the noise of the kept region by itself, as many images as there are.
        kept = getattr(sampler, "inpaint_options", {}).get("random", False)
        self.by_image = not (kept and self.denoise_mask is not None)

    def begin(self, progress: Progress, memory: str, reserved: int) -> None:
        """Report to `progress`; memory: see levels.MEMORY.

        reserved: bytes that decoding and scoring need, which are not free.
        """

        def watch(recomputed: bool) -> None:
            management.throw_exception_if_processing_interrupted()
            progress.watch(recomputed)

        free = management.get_free_memory(self.noise.device)
        self.levels.begin(memory, free, reserved, self.steps, watch)

    def render(self, noise: Noise) -> Tensor:
        """Noise -> latent in the model's space; bitwise what the host's sampler gives.

        The noise may hold a multiple of the job's batch, as the estimated gradients ask for.
        """
        repeats = len(noise.initial) // len(self.noise)
        if repeats > 1 and not self.by_image:
            return torch.cat([self.render(part) for part in noise.split(len(self.noise))])
        self.levels.restart()
        self._twins.follow(noise.tape(), noise.initial.shape)
        options = dict(self._extra_args["model_options"])
        extra_args = {**self._extra_args, "model_options": options, "seed": self.seed}
        latent = self._sampler.sample(
            self._model,
            self.sigmas.clone(),
            extra_args,
            None,
            noise.initial,
            *(_repeated(tensor, repeats) for tensor in (self.latent_image, self.denoise_mask)),
            True,
        )
        if torch.is_grad_enabled() and noise.leaves() and not latent.requires_grad:
            raise ValueError(
                "This sampler or model cannot be differentiated: no gradient reached the latent. "
                "Choose another sampler, and a model without compiled, TensorRT or Nunchaku parts."
            )
        return latent

    def _calc_cond_batch(self, executor, model, conds, x_in, timestep, model_options):
        """Every evaluation of the network, ControlNet included, at its level of memory."""

        def evaluate(x: Tensor, conds=conds) -> tuple[Tensor, ...]:
            return tuple(executor(model, conds, x, timestep, model_options))

        def alone(place: int):
            only = [cond if place == other else None for other, cond in enumerate(conds)]
            return lambda x: (evaluate(x, only)[place],)

        prompts = sum(cond is not None for cond in conds)
        split = [alone(place) for place in range(len(conds))] if prompts > 1 else []
        hooked = any(entry.get("hooks") for entries in conds for entry in entries or ())
        return list(self.levels(evaluate, x_in, split, steady=not hooked))


def _levels(model_wrap, resident: frozenset[int], device: torch.device) -> Levels:
    inner = model_wrap.inner_model
    others = (getattr(patcher, "model", None) for patcher in model_wrap.loaded_models)
    networks = [inner.diffusion_model, *(m for m in others if isinstance(m, torch.nn.Module))]
    precision = getattr(inner, "manual_cast_dtype", None) or inner.get_dtype()
    moment = block_moment(getattr(inner, "current_patcher", None), device)
    return Levels(networks, resident, moment=moment, precision=precision)


def _repeated(tensor: Tensor | None, repeats: int) -> Tensor | None:
    return tensor if tensor is None or repeats == 1 else torch.cat([tensor] * repeats)


def differentiable(sampler, twins: Twins):
    """A copy of a host sampler whose function keeps the gradient and draws over the tape."""
    twin = copy.copy(sampler)
    try:
        if hasattr(sampler, "sampler_function"):
            twin.sampler_function = _on_own_sigmas(twins.of(sampler.sampler_function))
            options = dict(sampler.extra_options)
            if options.get("noise_sampler") is not None:
                options["noise_sampler"] = twins.sampler(options["noise_sampler"])
            twin.extra_options = options
        else:
            twin.sample = twins.of(sampler.sample)
    except TypeError as error:
        raise ValueError(
            f"This sampler cannot be differentiated ({error}). Choose one of ComfyUI's own."
        ) from error
    return twin


def _on_own_sigmas(function):
    """uni_pc writes into sigmas that autograd has saved: let it write into a copy, then tell."""

    def sample(model, noise, sigmas, **options):
        own = sigmas.clone()
        latent = function(model, noise, own, **options)
        sigmas.data.copy_(own)  # past the version counter: what was saved did not change
        return latent

    return sample

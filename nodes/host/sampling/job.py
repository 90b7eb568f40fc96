"""From a user's inputs to one sampling; each failed check is one sentence, before any GPU work."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import comfy.model_management as management
import comfy.sample
import comfy.samplers
import comfy.utils
from torch import Tensor

from ....dno.objective import Objective, Weighted
from ..compat import intermediate_dtype


@dataclass(frozen=True)
class Job:
    """What KSampler would sample: latent and noise (B,C,...), sigmas (steps + 1), mask or None."""

    guider: comfy.samplers.CFGGuider
    sampler: comfy.samplers.Sampler
    sigmas: Tensor
    latent: Tensor
    noise: Tensor
    mask: Tensor | None
    batch_index: Sequence[int] | None

    def draw(self, seed: int) -> Tensor:
        """KSampler's noise of a seed; it also seeds what samplers draw from torch itself."""
        return comfy.sample.prepare_noise(self.latent, seed, self.batch_index)

    def sample(self, seed: int, callback: Callable | None = None) -> Tensor:
        """KSampler's latent of a seed, to the bit. callback: (step, x0, x, steps)."""
        noise = self.draw(seed)
        samples = self.guider.sample(
            noise,
            self.latent,
            self.sampler,
            self.sigmas.clone(),  # uni_pc writes into them
            denoise_mask=self.mask,
            callback=callback,
            disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
            seed=seed,
        )
        return handed_on(samples)


def prepare(
    model,
    positive,
    negative,
    latent_image: Mapping,
    seed: int,
    steps: int,
    cfg: float,
    sampler_name: str,
    scheduler: str,
    denoise: float,
) -> Job:
    """All that KSampler makes of its inputs, in the same order, so that both agree bitwise."""
    if model is None:
        raise ValueError("The model input is empty: this checkpoint holds no diffusion model.")
    latent = fit_latent(model, latent_image)
    chosen = latent_image.get("batch_index")
    noise = comfy.sample.prepare_noise(latent, seed, chosen)
    plan = comfy.samplers.KSampler(
        model,
        steps=steps,
        device=model.load_device,
        sampler=sampler_name,
        scheduler=scheduler,
        denoise=denoise,
        model_options=model.model_options,
    )
    if len(plan.sigmas) < 2:
        raise ValueError(f"denoise is {denoise}: nothing is sampled. Use a denoise above 0.")
    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(positive, negative)
    guider.set_cfg(cfg)
    sampler = comfy.samplers.sampler_object(sampler_name)
    mask = latent_image.get("noise_mask")
    return Job(guider, sampler, plan.sigmas, latent, noise, mask, chosen)


def with_noise(job: Job, given, latent_image: Mapping) -> Job:
    """The job with the noise of a NOISE, if one is given, instead of its seed's."""
    if given is None:
        return job
    noise = given.generate_noise({**latent_image, "samples": job.latent})
    if noise.shape != job.noise.shape:
        raise ValueError(
            f"The noise input has shape {tuple(noise.shape)}, and latent_image asks for "
            f"{tuple(job.noise.shape)}: use the model, size and batch that it was made with."
        )
    return replace(job, noise=noise.to(job.noise))


def seed_at(seed: int | None, offset: int) -> int:
    """The seed `offset` after this one; behind the largest comes 0."""
    return ((seed or 0) + offset) % 2**64


def handed_on(samples: Tensor) -> Tensor:
    """Samples where KSampler leaves them, and in its precision."""
    return samples.to(device=management.intermediate_device(), dtype=intermediate_dtype(samples))


def with_samples(latent_image: Mapping, samples: Tensor) -> dict:
    """The LATENT that KSampler hands on."""
    kept = {k: v for k, v in latent_image.items() if not k.startswith("downscale_ratio")}
    return {**kept, "samples": samples}


def fit_latent(model, latent_image: Mapping) -> Tensor:
    """The latent with the model's channels if it is an empty one; refused if it cannot fit."""
    samples = latent_image["samples"]
    if getattr(samples, "is_nested", False):
        raise ValueError("DNO aligns images; this latent also holds audio or video parts.")
    if samples.numel() == 0 or min(samples.shape[-2:]) == 0:
        raise ValueError(
            f"latent_image has size zero, {tuple(samples.shape)}: give it a width and height."
        )
    fix = comfy.sample.fix_empty_latent_channels
    extra = list(inspect.signature(fix).parameters)[2:]  # newer ComfyUI: the latent's scale
    samples = fix(model, samples, **{name: latent_image.get(name) for name in extra})
    channels = model.get_model_object("latent_format").latent_channels
    if samples.shape[1] != channels:
        raise ValueError(
            f"latent_image has {samples.shape[1]} channels and the model works on {channels}: "
            "encode it with this model's VAE."
        )
    return samples


def check_latent(noise: Tensor) -> None:
    """Refuse what cannot be aligned yet, in a sentence."""
    if noise.ndim == 5 and noise.shape[2] > 1:
        raise ValueError(
            f"DNO aligns single images; this latent has {noise.shape[2]} frames: use a length of 1."
        )
    if noise.ndim not in (4, 5):
        raise ValueError(f"DNO aligns images, and this latent has shape {tuple(noise.shape)}.")


def check_vae(vae, model) -> None:
    """Refuse a VAE that cannot decode what the model makes."""
    if vae is None:
        raise ValueError(
            "The vae input is empty: this checkpoint holds no VAE; add a Load VAE node."
        )
    vae.throw_exception_if_invalid()
    channels = model.get_model_object("latent_format").latent_channels
    if vae.latent_channels != channels:
        raise ValueError(
            f"The VAE decodes latents of {vae.latent_channels} channels, the model makes "
            f"{channels}: use the VAE that belongs to this model."
        )
    if vae.output_channels != 3:
        raise ValueError("The VAE does not decode to an RGB image: DNO aligns images.")


def objective(
    reward: Mapping[str, Weighted], regularizer: Mapping[str, Weighted] | None, indicators: Mapping
) -> Objective:
    """The objective of a reward socket and an optional regularizer socket."""
    if not isinstance(reward, Mapping) or not reward:
        raise ValueError(
            "The reward input is not a DNO reward: connect a node from sampling/DNO/rewards."
        )
    if regularizer is not None and not isinstance(regularizer, Mapping):
        raise ValueError(
            "The regularizer input is not a DNO regularizer: connect one from "
            "sampling/DNO/regularizers."
        )
    return Objective(reward, regularizer or {}, indicators)

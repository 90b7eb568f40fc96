"""The DNO Sampler, in KSampler's place, and its form for SamplerCustom."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management
import comfy.samplers
from comfy_api.latest import io

from ..dno.history import History
from ..dno.objective import Objective
from ..regularizers import Probability, Spectrum
from .host.aligner import Aligner, Settings
from .host.prepare import Job, check_vae, objective, prepare
from .host.replay import FixedNoise, Replay
from .options import Options
from .schema import (
    CATEGORY,
    HistorySocket,
    OptimizerSocket,
    OptionsSocket,
    RegularizerSocket,
    RewardSocket,
    schema,
    supported,
)

INDICATORS = {"P(z)": Probability().indicator, "spectral deviation": Spectrum().indicator}


def _what_climbs() -> list[io.Input]:
    return [
        io.Vae.Input("vae", tooltip="The VAE of this model: each picture is decoded to be scored."),
        RewardSocket.Input(
            "reward", tooltip="What the picture should become. Combine Rewards adds several."
        ),
    ]


def _how_it_climbs() -> list[io.Input]:
    return [
        io.Int.Input(
            "iterations",
            default=30,
            min=0,
            max=10000,
            tooltip="How often the noise is improved. 0 gives KSampler's picture. One costs about three samplings.",
        ),
        io.Float.Input(
            "learning_rate",
            default=0.03,
            min=0.0,
            max=100.0,
            step=0.001,
            round=False,
            tooltip="How far the noise moves per iteration. Higher is faster and strays further from the first picture.",
        ),
    ]


def _extras() -> list[io.Input]:
    return [
        RegularizerSocket.Input(
            "regularizer",
            optional=True,
            tooltip="Keeps the noise Gaussian, and with it the picture's subject. Spectrum is a good start.",
        ),
        supported(
            OptimizerSocket.Input,
            "optimizer",
            optional=True,
            advanced=True,
            tooltip="How the gradient moves the noise: Adam if nothing is connected.",
        ),
        supported(
            OptionsSocket.Input,
            "options",
            optional=True,
            advanced=True,
            tooltip="Stopping rules, gradient clipping, memory and what part of the noise is optimised.",
        ),
    ]


class DNOSampler(io.ComfyNode):
    """KSampler that improves its own noise until the reward likes the picture.

    Direct Noise Optimization (arXiv 2405.18881): no training, no weights changed.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOSampler",
            display_name="DNO Sampler",
            category=CATEGORY,
            description=" ".join((cls.__doc__ or "").split()),
            search_aliases=["direct noise optimization", "reward", "align", "KSampler"],
            inputs=[*_like_ksampler(), *_how_it_climbs(), *_extras()],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The best of each image, for VAE Decode."
                ),
                HistorySocket.Output(
                    display_name="history", tooltip="For History Plot and History Frames."
                ),
                io.Noise.Output(display_name="noise", tooltip="The optimised initial noise."),
                io.Sampler.Output(
                    display_name="sampler",
                    tooltip="Replays the optimised noise of each step; with noise, in SamplerCustomAdvanced, it gives the same picture.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        latent_image,
        vae,
        reward,
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        iterations,
        learning_rate,
        regularizer=None,
        optimizer=None,
        options=None,
    ) -> io.NodeOutput:
        climbed = objective(reward, regularizer, INDICATORS)
        settings = (options or Options()).settings(iterations, learning_rate, optimizer)
        job = prepare(
            model,
            positive,
            negative,
            latent_image,
            seed,
            steps,
            cfg,
            sampler_name,
            scheduler,
            denoise,
        )
        check_vae(vae, model)
        samples, history = align(job, vae, climbed, settings, seed)
        latent = {
            key: value
            for key, value in latent_image.items()
            if not key.startswith("downscale_ratio")
        }
        latent["samples"] = samples
        noise = FixedNoise(history.best_noise.initial, seed)
        return io.NodeOutput(latent, history, noise, Replay(job.sampler, history.best_noise))


def align(job: Job, vae, climbed: Objective, settings: Settings, seed: int):
    """Run the job with its noise climbing; the best latent, as KSampler hands it on, and the history."""
    aligner = Aligner(job.sampler, vae, climbed, settings)
    samples = job.guider.sample(
        job.noise,
        job.latent,
        aligner,
        job.sigmas,
        denoise_mask=job.mask,
        disable_pbar=True,
        seed=seed,
    )
    assert isinstance(aligner.history, History)
    return samples.to(comfy.model_management.intermediate_device()), aligner.history


def _like_ksampler() -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            tooltip="The model that draws; LoRA, ControlNet and other patches stay in force.",
        ),
        io.Conditioning.Input("positive", tooltip="What the picture shows."),
        io.Conditioning.Input("negative", tooltip="What the picture should not show."),
        io.Latent.Input("latent_image", tooltip="The latent to draw on; empty for text to image."),
        *_what_climbs(),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=True,
            tooltip="Seed of the first noise: iteration 0 is KSampler's picture of this seed.",
        ),
        io.Int.Input(
            "steps",
            default=20,
            min=1,
            max=10000,
            tooltip="Sampling steps. Fewer are faster at every iteration; 8 to 20 is usual here.",
        ),
        io.Float.Input(
            "cfg",
            default=8.0,
            min=0.0,
            max=100.0,
            step=0.1,
            round=0.01,
            tooltip="How strongly the prompt counts. 1 needs one evaluation of the model instead of two.",
        ),
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            tooltip="Ancestral and SDE samplers give more noise to optimise; all of them have exact gradients.",
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.KSampler.SCHEDULERS,
            tooltip="How the noise level falls.",
        ),
        io.Float.Input(
            "denoise",
            default=1.0,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="Below 1 the picture in latent_image is kept in part.",
        ),
    ]


class DNOSamplerCustom(io.ComfyNode):
    """Turns any SAMPLER into one that improves its noise, for SamplerCustom and SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOSamplerCustom",
            display_name="DNO Sampler (custom)",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["direct noise optimization", "SamplerCustomAdvanced"],
            inputs=[
                io.Sampler.Input("sampler", tooltip="The sampler whose noise is optimised."),
                *_what_climbs(),
                *_how_it_climbs(),
                *_extras(),
            ],
            outputs=[
                io.Sampler.Output(
                    display_name="sampler", tooltip="For any guider, noise and sigmas."
                )
            ],
        )

    @classmethod
    def execute(
        cls,
        sampler,
        vae,
        reward: Mapping,
        iterations,
        learning_rate,
        regularizer=None,
        optimizer=None,
        options=None,
    ) -> io.NodeOutput:
        climbed = objective(reward, regularizer, INDICATORS)
        settings = (options or Options()).settings(iterations, learning_rate, optimizer)
        return io.NodeOutput(Aligner(sampler, vae, climbed, settings))


NODES = [DNOSampler, DNOSamplerCustom]

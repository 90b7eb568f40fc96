"""The inputs that the samplers share, in KSampler's words."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.samplers
from comfy_api.latest import io

from .host.compat import supported
from .plan import EFFORTS
from .schema import (
    GradientSocket,
    OptimizerSocket,
    OptionsSocket,
    RegularizerSocket,
    RewardSocket,
)


def what_climbs() -> list[io.Input]:
    return [
        io.Vae.Input("vae", tooltip="The VAE of this model: each picture is decoded to be scored."),
        RewardSocket.Input(
            "reward", tooltip="What the picture should become. Combine Rewards adds several."
        ),
    ]


def how_it_climbs() -> list[io.Input]:
    return [
        io.Int.Input(
            "iterations",
            default=-1,
            min=-1,
            max=10000,
            tooltip=(
                "-1: as effort says. 0 gives KSampler's picture. Above: the noise climbs so often "
                "by its exact gradient, whatever the effort; one costs about three samplings."
            ),
        ),
        io.Float.Input(
            "learning_rate",
            default=0.03,
            min=0.0,
            max=100.0,
            step=0.001,
            round=False,
            tooltip=(
                "How far the noise moves per iteration, where iterations or an optimizer are set. "
                "Higher is faster and strays further from the first picture."
            ),
        ),
    ]


def extras() -> list[io.Input]:
    return [
        RegularizerSocket.Input(
            "regularizer",
            optional=True,
            tooltip=(
                "Keeps the noise Gaussian, and with it the picture's subject. With nothing here a "
                "climb uses Spectrum; No Regularizer switches it off."
            ),
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
            tooltip=(
                "Stopping rules, a start from the best of N seeds, gradient clipping, memory and "
                "what part of the noise is optimised."
            ),
        ),
        supported(
            GradientSocket.Input,
            "gradient",
            optional=True,
            advanced=True,
            tooltip=(
                "How rewards without a gradient are climbed: Hybrid-2 if nothing is connected. "
                "Rewards that have a gradient keep it."
            ),
        ),
    ]


def how_much() -> io.Input:
    """Behind all other widgets: workflows of before have no value for it, and set iterations."""
    return io.Combo.Input(
        "effort",
        options=list(EFFORTS),
        default="fast",
        optional=True,
        tooltip=(
            "one pass: 1 sampling, its noise steered while it is drawn. fast: 6 samplings, any "
            "model. thorough: fast, then up to 9 exact turns, about 30 samplings. paper: 50 exact "
            "iterations, about 150. Iterations, an optimizer, a preset or a steering node override "
            "it."
        ),
    )


def goes_on() -> io.Input:
    """Where a run starts instead of at its seed."""
    return io.Noise.Input(
        "noise",
        optional=True,
        tooltip=(
            "Start from this noise instead of the seed's: of a DNO Sampler or Load Noise, to go on "
            "where that run stopped, or of RandomNoise."
        ),
    )


def like_ksampler(tooltips: Mapping[str, str] | None = None) -> list[io.Input]:
    """KSampler's inputs, the VAE and the reward; `tooltips` by name replace the DNO Sampler's."""
    inputs = [*_what_is_drawn(), *what_climbs(), *_how_it_is_sampled(), *_schedule()]
    for each in inputs:
        each.tooltip = (tooltips or {}).get(each.id, each.tooltip)
    return inputs


def _what_is_drawn() -> list[io.Input]:
    return [
        io.Model.Input(
            "model",
            tooltip="The model that draws; LoRA, ControlNet and other patches stay in force.",
        ),
        io.Conditioning.Input("positive", tooltip="What the picture shows."),
        io.Conditioning.Input("negative", tooltip="What the picture should not show."),
        io.Latent.Input("latent_image", tooltip="The latent to draw on; empty for text to image."),
    ]


def _how_it_is_sampled() -> list[io.Input]:
    return [
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
            tooltip=(
                "How strongly the prompt counts. 1 needs one evaluation of the model instead of "
                "two."
            ),
        ),
    ]


def _schedule() -> list[io.Input]:
    return [
        io.Combo.Input(
            "sampler_name",
            options=comfy.samplers.KSampler.SAMPLERS,
            tooltip=(
                "Ancestral and SDE samplers give more noise to optimise; all of them have exact "
                "gradients."
            ),
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

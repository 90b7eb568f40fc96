"""The DNO Sampler, in KSampler's place, and its form for SamplerCustom."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

from ..dno.objective import Objective
from ..regularizers import Probability, Spectrum
from .host import metadata
from .host.sampling.aligner import Aligner
from .host.sampling.job import (
    Job,
    check_vae,
    handed_on,
    objective,
    prepare,
    with_noise,
    with_samples,
)
from .host.sampling.replay import Draws, Replay
from .host.sampling.settings import Settings
from .inputs import extras, goes_on, how_it_climbs, how_much, like_ksampler, what_climbs
from .options import Options
from .outputs import before, first_picture, handed, of_a_run
from .plan import planned
from .schema import CATEGORY, NOTED, schema

DRAWING = ("seed", "steps", "cfg", "sampler_name", "scheduler", "denoise")
INDICATORS = {"P(z)": Probability().indicator, "spectral deviation": Spectrum().indicator}


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
            inputs=[*like_ksampler(), *how_it_climbs(), *extras(), how_much(), goes_on()],
            hidden=list(NOTED),
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="The best of each image, for VAE Decode."
                ),
                *of_a_run(),
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="The noise levels that were sampled."
                ),
                before(),
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
        gradient=None,
        effort="fast",
        noise=None,
    ) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        chosen = (effort, iterations, learning_rate, regularizer, optimizer, gradient)
        settings, regularizer = planned(options or Options(), *chosen)
        wanted = objective(reward, regularizer, INDICATORS)
        first = seed if noise is None else getattr(noise, "seed", seed)
        drawing = (first, steps, cfg, sampler_name, scheduler, denoise)
        job = prepare(model, positive, negative, latent_image, *drawing)
        check_vae(vae, model)
        job = with_noise(job, noise, latent_image)
        samples, climbed = align(job, vae, wanted, settings, first, Draws.of(noise, seed))
        noted = dict(zip(DRAWING, drawing, strict=True))
        metadata.note({"sampling": noted | ({} if noise is None else {"noise": "given"})})
        latent, sigmas = with_samples(latent_image, samples), job.sigmas.clone()
        run = handed(climbed, job.sampler)
        return io.NodeOutput(latent, *run, sigmas, first_picture(climbed))


def align(job: Job, vae, objective: Objective, settings: Settings, seed: int, draws=None):
    """Run the job with its noise climbing: the best latent, as KSampler gives it; what it did.

    draws: of an earlier run, to go on from.
    """
    aligner = Aligner(job.sampler, vae, objective, settings, job.draw, draws)
    samples = job.guider.sample(
        job.noise,
        job.latent,
        aligner,
        job.sigmas.clone(),  # uni_pc writes into them
        denoise_mask=job.mask,
        disable_pbar=True,
        seed=seed,
    )
    assert aligner.climbed is not None
    return handed_on(samples), aligner.climbed


class DNOSamplerCustom(io.ComfyNode):
    """A SAMPLER that improves its own noise, for SamplerCustom and SamplerCustomAdvanced."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOSamplerCustom",
            display_name="DNO Sampler (custom)",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["direct noise optimization", "SamplerCustomAdvanced"],
            inputs=[
                io.Sampler.Input(
                    "sampler",
                    tooltip=(
                        "The sampler whose noise is optimised. One that replays a DNO Sampler's "
                        "draws goes on from them."
                    ),
                ),
                *what_climbs(),
                *how_it_climbs(),
                *extras(),
                how_much(),
            ],
            hidden=list(NOTED),
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
        gradient=None,
        effort="fast",
    ) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        chosen = (effort, iterations, learning_rate, regularizer, optimizer, gradient)
        settings, regularizer = planned(options or Options(), *chosen)
        climbed = objective(reward, regularizer, INDICATORS)
        draws = None
        if isinstance(sampler, Replay):  # go on from what it plays back
            sampler, draws = sampler.sampler, sampler.draws
        return io.NodeOutput(Aligner(sampler, vae, climbed, settings, draws=draws))


class DNOSamplerHistory(io.ComfyNode):
    """What a DNO Sampler (custom) did, once SamplerCustom or SamplerCustomAdvanced has run it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOSamplerHistory",
            display_name="DNO Sampler History",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "history", "SamplerCustomAdvanced", "replay"],
            inputs=[
                io.Sampler.Input("sampler", tooltip="From DNO Sampler (custom)."),
                io.Latent.Input("latent", tooltip="What was sampled with it, so that it has run."),
            ],
            outputs=[*of_a_run(), before()],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs: object) -> float:
        return float("nan")  # the sampler may have run again since

    @classmethod
    def execute(cls, sampler, latent) -> io.NodeOutput:
        if not isinstance(sampler, Aligner):
            raise ValueError("The sampler input is no DNO sampler: connect DNO Sampler (custom).")
        if sampler.climbed is None:
            raise ValueError(
                "This DNO sampler has not run: connect latent to the output of the "
                "SamplerCustomAdvanced that it is plugged into."
            )
        climbed = sampler.climbed
        return io.NodeOutput(*handed(climbed, sampler.sampler), first_picture(climbed))


NODES = [DNOSampler, DNOSamplerCustom, DNOSamplerHistory]

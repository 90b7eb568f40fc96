"""The DNO Sampler, in KSampler's place, and its form for SamplerCustom."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

from ..dno.objective import Objective
from ..regularizers import Probability, Spectrum
from .host import metadata
from .host.sampling.aligner import Aligner
from .host.sampling.climb import Settings
from .host.sampling.job import Job, check_vae, handed_on, objective, prepare, with_samples
from .host.sampling.replay import FixedNoise, Replay
from .inputs import extras, how_it_climbs, how_much, like_ksampler, what_climbs
from .options import Options
from .plan import planned
from .schema import CATEGORY, NOTED, HistorySocket, schema

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
            inputs=[*like_ksampler(), *how_it_climbs(), *extras(), how_much()],
            hidden=list(NOTED),
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
                    tooltip=(
                        "Replays the optimised noise of each step; with noise and sigmas, in "
                        "SamplerCustomAdvanced, it gives the same picture."
                    ),
                ),
                io.Sigmas.Output(
                    display_name="sigmas", tooltip="The noise levels that were sampled."
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
        gradient=None,
        effort="fast",
    ) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        chosen = (effort, iterations, learning_rate, regularizer, optimizer, gradient)
        settings, regularizer = planned(options or Options(), *chosen)
        wanted = objective(reward, regularizer, INDICATORS)
        drawing = (seed, steps, cfg, sampler_name, scheduler, denoise)
        job = prepare(model, positive, negative, latent_image, *drawing)
        check_vae(vae, model)
        samples, climbed = align(job, vae, wanted, settings, seed)
        metadata.note({"sampling": dict(zip(DRAWING, drawing, strict=True))})
        noise, origin = climbed.history.best.noise, climbed.origin
        fixed = FixedNoise(noise.initial, origin.seed)
        replay = Replay(job.sampler, noise, origin.generators)
        latent = with_samples(latent_image, samples)
        return io.NodeOutput(latent, climbed.history, fixed, replay, job.sigmas.clone())


def align(job: Job, vae, objective: Objective, settings: Settings, seed: int):
    """Run the job with its noise climbing: the best latent, as KSampler gives it; what it did."""
    aligner = Aligner(job.sampler, vae, objective, settings, job.draw)
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
                io.Sampler.Input("sampler", tooltip="The sampler whose noise is optimised."),
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
        return io.NodeOutput(Aligner(sampler, vae, climbed, settings))


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
            outputs=[
                HistorySocket.Output(display_name="history", tooltip="For the history nodes."),
                io.Noise.Output(display_name="noise", tooltip="The optimised initial noise."),
                io.Sampler.Output(
                    display_name="sampler", tooltip="Replays the optimised noise of each step."
                ),
            ],
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
        noise, origin = sampler.climbed.history.best.noise, sampler.climbed.origin
        replay = Replay(sampler.sampler, noise, origin.generators)
        return io.NodeOutput(
            sampler.climbed.history, FixedNoise(noise.initial, origin.seed), replay
        )


NODES = [DNOSampler, DNOSamplerCustom, DNOSamplerHistory]

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
        settings, regularizer = planned(
            options or Options(),
            *(effort, iterations, learning_rate, regularizer, optimizer, gradient),
        )
        wanted = objective(reward, regularizer, INDICATORS)
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
        samples, climbed = align(job, vae, wanted, settings, seed)
        plan = dict(sampler_name=sampler_name, scheduler=scheduler, steps=steps, cfg=cfg)
        metadata.note({"sampling": {**plan, "denoise": denoise, "seed": seed}})
        noise, origin = climbed.history.best.noise, climbed.origin
        return io.NodeOutput(
            with_samples(latent_image, samples),
            climbed.history,
            FixedNoise(noise.initial, origin.seed),
            Replay(job.sampler, noise, origin.generators),
            job.sigmas.clone(),
        )


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
        settings, regularizer = planned(
            options or Options(),
            *(effort, iterations, learning_rate, regularizer, optimizer, gradient),
        )
        climbed = objective(reward, regularizer, INDICATORS)
        return io.NodeOutput(Aligner(sampler, vae, climbed, settings))


NODES = [DNOSampler, DNOSamplerCustom]

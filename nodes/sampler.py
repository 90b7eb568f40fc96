"""The DNO Sampler, in KSampler's place, and its form for SamplerCustom."""

from __future__ import annotations

from collections.abc import Mapping

from comfy_api.latest import io

from ..dno.history import History
from ..dno.objective import Objective
from ..regularizers import Probability, Spectrum
from .host import metadata
from .host.sampling.aligner import Aligner, Settings
from .host.sampling.job import Job, check_vae, handed_on, objective, prepare, with_samples
from .host.sampling.replay import FixedNoise, Replay
from .inputs import extras, how_it_climbs, like_ksampler, what_climbs
from .options import Options
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
            inputs=[*like_ksampler(), *how_it_climbs(), *extras()],
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
                        "Replays the optimised noise of each step; with noise, in "
                        "SamplerCustomAdvanced, it gives the same picture."
                    ),
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
    ) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        climbed = objective(reward, regularizer, INDICATORS)
        settings = (options or Options()).settings(iterations, learning_rate, optimizer, gradient)
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
        samples, aligner = align(job, vae, climbed, settings, seed)
        plan = dict(sampler_name=sampler_name, scheduler=scheduler, steps=steps, cfg=cfg)
        metadata.note({"sampling": {**plan, "denoise": denoise, "seed": seed}})
        latent, history = with_samples(latent_image, samples), aligner.history
        noise = FixedNoise(history.best_noise.initial, aligner.seed)
        return io.NodeOutput(latent, history, noise, Replay(job.sampler, history.best_noise))


def align(job: Job, vae, climbed: Objective, settings: Settings, seed: int):
    """Run the job with its noise climbing: the best latent, as KSampler gives it; what it did."""
    aligner = Aligner(job.sampler, vae, climbed, settings, job.draw)
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
    return handed_on(samples), aligner


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
    ) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        climbed = objective(reward, regularizer, INDICATORS)
        settings = (options or Options()).settings(iterations, learning_rate, optimizer, gradient)
        return io.NodeOutput(Aligner(sampler, vae, climbed, settings))


NODES = [DNOSampler, DNOSamplerCustom]

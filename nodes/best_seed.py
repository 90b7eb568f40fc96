"""Best of N seeds through the plain sampler: the baseline that Direct Noise Optimization has."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import comfy.model_management as management
import torch
from comfy_api.latest import io, ui
from PIL import Image
from torch import Tensor

from ..dno.objective import Objective, Weighted
from .drawing.canvas import number
from .drawing.sheet import MOST, Tile, order, reduced, sheet
from .host import metadata
from .host.described import described, terms
from .host.picture.finite import not_finite
from .host.progress import Progress
from .host.sampling.job import (
    Job,
    check_latent,
    check_vae,
    objective,
    prepare,
    seed_at,
    with_samples,
)
from .host.web import say
from .inputs import like_ksampler
from .schema import CATEGORY, drawn, for_json, schema, to_image
from .score import rewards_of, table

TOOLTIPS = {
    "reward": "What the pictures are judged by. Combine Rewards adds several.",
    "seed": "The first seed; the next ones follow it.",
    "steps": "Sampling steps.",
    "sampler_name": "As in KSampler.",
}


@dataclass
class Trials:
    """What the seeds gave so far, and of the best its samples and pictures (B,3,H,W).

    rewards, terms: the mean over the batch of each seed.
    pictures: small ones of the best seeds, by index.
    lost: why the last seed without a reward, which is NaN, has none.
    """

    seeds: list[int]
    rewards: list[float] = field(default_factory=list)
    terms: dict[str, list[float]] = field(default_factory=dict)
    pictures: dict[int, Image.Image] = field(default_factory=dict)
    samples: Tensor | None = None
    shown: Tensor | None = None
    lost: str = ""

    @property
    def best(self) -> int:
        return order(self.rewards)[0]

    def add(
        self, rewards: list[float], terms: Mapping[str, list[float]], samples: Tensor, shown: Tensor
    ) -> None:
        """Take in the next seed's batch."""
        index = len(self.rewards)
        self.rewards.append(_mean(rewards))
        for name, values in terms.items():
            self.terms.setdefault(name, []).append(_mean(values))
        if self.best == index:
            self.samples, self.shown = samples, shown
        self.pictures[index] = reduced(shown, len(self.seeds))
        if len(self.pictures) > MOST:
            del self.pictures[max(self.pictures, key=order(self.rewards).index)]

    def line(self) -> str:
        """`best of 8: 3/8, 0.41; best so far seed 7, 0.52`"""
        done, best = len(self.rewards), self.best
        last = f"best of {len(self.seeds)}: {done}/{len(self.seeds)}, {number(self.rewards[-1])}"
        return f"{last}; best so far seed {self.seeds[best]}, {number(self.rewards[best])}"

    def sheet(self) -> Tensor:
        tiles = [
            Tile(self.pictures[index], str(self.seeds[index]), self.rewards[index])
            for index in order(self.rewards)[:MOST]
        ]
        return drawn(sheet(tiles, len(self.rewards) - len(tiles)))

    def told(self, steps: int) -> dict[str, object]:
        """For programs: the run as DNO History Data tells it, a seed in an iteration's place."""
        count = range(len(self.rewards))
        return {
            "step": list(count),
            "evaluations": [steps * (index + 1) for index in count],
            "reward": [[reward] for reward in for_json(self.rewards)],
            "terms": {n: [[value] for value in for_json(v)] for n, v in self.terms.items()},
            "best_step": [self.best],
        }

    def noted(self) -> dict[str, object]:
        """What a saved picture tells of them."""
        best = {name: values[self.best] for name, values in self.terms.items()}
        return {
            "seeds": [self.seeds[0], self.seeds[-1]],
            "best_seed": self.seeds[self.best],
            "reward": described(self.rewards[self.best]),
            "terms": described(best),
        }

    def table(self) -> str:
        lines = table(self.rewards, self.terms, self.best, kind="seed", names=self.seeds)
        return f"{lines}\n{self.lost}".strip()


class DNOBestSeed(io.ComfyNode):
    """Samples several seeds as KSampler does and hands on the one that a reward likes best."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOBestSeed",
            display_name="DNO Best Seed",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "best of n", "seed search", "reward", "KSampler"],
            is_output_node=True,
            inputs=[
                *like_ksampler(TOOLTIPS),
                io.Int.Input(
                    "seeds", default=8, min=1, max=4096,
                    tooltip="How many seeds to try: seed, seed + 1 and so on.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="KSampler's latent of the best seed."
                ),
                io.Int.Output(display_name="best_seed", tooltip="The best seed."),
                io.String.Output(display_name="scores", tooltip="A table, one line per seed."),
                io.Float.Output(
                    display_name="all_scores", is_output_list=True,
                    tooltip="The weighted reward of every seed in turn, as a list.",
                ),
                io.Image.Output(
                    display_name="sheet", tooltip="Every seed's picture and score, best first."
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(
        cls,
        model,
        positive,
        negative,
        latent_image,
        vae,
        reward: Mapping[str, Weighted],
        seed,
        steps,
        cfg,
        sampler_name,
        scheduler,
        denoise,
        seeds,
    ) -> io.NodeOutput:
        metadata.begin(cls.hidden)
        judge = objective(reward, None, {})
        drawing = (seed, steps, cfg, sampler_name, scheduler, denoise)
        job = prepare(model, positive, negative, latent_image, *drawing)
        check_latent(job.noise)
        check_vae(vae, model)
        trials = try_seeds(job, vae, model, judge, [seed_at(seed, n) for n in range(seeds)])
        assert trials.samples is not None
        text, contact = trials.table(), trials.sheet()
        say(text)
        metadata.note({"rewards": terms(reward), **trials.noted()})
        return io.NodeOutput(
            with_samples(latent_image, trials.samples),
            trials.seeds[trials.best],
            text,
            trials.rewards,
            contact,
            ui={
                **ui.PreviewImage(contact, cls=cls).as_dict(),
                "text": [text],
                "dno_history": [trials.told(len(job.sigmas) - 1)],
            },
        )


def try_seeds(job: Job, vae, model, judge: Objective, seeds: list[int]) -> Trials:
    """Sample, decode and score the seeds one after the other."""
    trials, progress = Trials(seeds), Progress(len(seeds), len(job.sigmas) - 1)
    for seed in seeds:
        samples = job.sample(seed, lambda *_: progress.watch(False))
        management.throw_exception_if_processing_interrupted()
        pictures = to_image(_decoded(vae, samples))
        with torch.inference_mode(False), torch.no_grad():
            latents = model.model.process_latent_in(samples.clone())
        rewards, terms = rewards_of(judge, pictures, latents, of=f" of seed {seed}")
        if not pictures.isfinite().all():
            what = "picture" if samples.isfinite().all() else "latent"
            trials.lost = f"Seed {seed}: {not_finite(what, vae)}"
            logging.warning(trials.lost)
        trials.add(rewards, terms, samples, pictures)
        progress.picture(pictures, trials.line())
        progress.next_sampling()
    if all(map(math.isnan, trials.rewards)):
        raise ValueError(trials.lost)
    progress.finish(trials.shown, trials.line())
    return trials


def _decoded(vae, samples: Tensor) -> Tensor:
    """The IMAGE (B,H,W,C) that VAE Decode makes of it."""
    flat = samples.ndim == 5 and vae.latent_dim == 2  # Qwen-Image's latents with a picture's VAE
    images = vae.decode(samples[:, :, 0] if flat else samples)
    return images.reshape(-1, *images.shape[-3:])


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


NODES = [DNOBestSeed]

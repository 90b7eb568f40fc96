"""Alignments of the demo checkpoint in this machine's ComfyUI, measured: what benchmarks repeat."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("DNO_BENCHMARKS", ROOT / ".comfyui" / "benchmarks"))
CFG, SCHEDULER, SAMPLER, SIZE = 3.0, "simple", "euler_ancestral", 16


@dataclass(frozen=True)
class Job:
    """One alignment. `reward` and `regularizers` are class names of the pack, with weights."""

    prompt: str
    concept: str
    seed: int
    reward: str
    regularizers: tuple[tuple[str, float], ...] = ()
    steps: int = 8
    iterations: int = 30
    learning_rate: float = 0.03
    reward_fields: dict = field(default_factory=dict)
    gradient: dict | None = None


@dataclass(frozen=True)
class Outcome:
    """Pairs are before and after; pictures (H,W,3) uint8; rewards holds every iteration's."""

    job: Job
    pictures: tuple[np.ndarray, np.ndarray]
    brightness: tuple[float, float]
    reward: tuple[float, float]
    probability: tuple[float, float]
    deviation: tuple[float, float]
    recognised: tuple[float, float]
    named: bool
    rewards: list[float]
    seconds: float
    stop_reason: str

    def numbers(self) -> dict:
        """Everything but the pictures, for a report."""
        record = dataclasses.asdict(self)
        record.pop("pictures")
        return record


class Demo:
    """The demo checkpoint in this process's ComfyUI."""

    def __init__(self) -> None:
        sys.path.insert(0, str(ROOT))
        from demo.checkpoint import assemble
        from demo.classifier import Classifier
        from tools import inside

        inside.start_comfyui(HOME / str(os.getpid()))
        inside.load_pack()
        checkpoint = assemble(HOME / "checkpoints" / "dno_demo.safetensors")
        self.model, self.clip, self.vae = inside.load_checkpoint(checkpoint)
        self.judge = Classifier.load()

    def encode(self, prompt: str):
        import nodes
        import torch

        with torch.inference_mode():
            return nodes.CLIPTextEncode().encode(self.clip, prompt)[0]

    def align(self, job: Job, reward=None, gradient=None):
        """The history of the DNO Sampler on one job; a reward or gradient given is used instead."""
        import torch

        from ComfyUI_DNO import regularizers, rewards
        from ComfyUI_DNO.dno.estimate import Estimated
        from ComfyUI_DNO.dno.objective import Weighted
        from ComfyUI_DNO.nodes.sampler import DNOSampler

        reward = reward or getattr(rewards, job.reward)(**job.reward_fields)
        if gradient is None and job.gradient:
            gradient = Estimated(**job.gradient)
        kept = {n: Weighted(w, getattr(regularizers, n)()) for n, w in job.regularizers}
        with torch.inference_mode():
            return DNOSampler.execute(
                self.model,
                self.encode(job.prompt),
                self.encode(""),
                {"samples": torch.zeros(1, 16, SIZE, SIZE)},
                self.vae,
                {job.reward: Weighted(1.0, reward)},
                job.seed,
                job.steps,
                CFG,
                SAMPLER,
                SCHEDULER,
                1.0,
                job.iterations,
                job.learning_rate,
                kept or None,
                gradient=gradient,
            )[1]

    def run(self, job: Job) -> Outcome:
        import torch

        history = self.align(job)
        pictures = torch.cat([history.film.images[0].float() / 255, history.best.image.cpu()])
        with torch.inference_mode():
            recognised = self.judge.recognised(pictures, job.concept)
            likeliest = self.judge.concepts(pictures).exp().amax(1)
            named = bool(recognised[1] >= likeliest[1] - 1e-6)
        first, best = history.records[0], history.records[int(history.best.step[0])]
        levels = pictures.mul(255).round().byte().permute(0, 2, 3, 1).numpy()
        return Outcome(
            job,
            (levels[0], levels[1]),
            tuple(pictures.mean((1, 2, 3)).tolist()),
            (float(first.reward), float(best.reward)),
            tuple(float(record.indicators["P(z)"]) for record in (first, best)),
            tuple(float(record.indicators["spectral deviation"]) for record in (first, best)),
            tuple(recognised.tolist()),
            named,
            [float(record.reward) for record in history.records],
            history.records[-1].seconds,
            history.stop_reason,
        )


_demo: Demo | None = None


def _start() -> None:
    global _demo
    os.environ["OMP_NUM_THREADS"] = "1"
    _demo = Demo()


def _run(job: Job) -> Outcome:
    assert _demo is not None
    return _demo.run(job)


def run_all(jobs: Sequence[Job], workers: int) -> Iterator[Outcome]:
    """Run the jobs in processes of one thread each, in order; print a line for each."""
    with ProcessPoolExecutor(workers, get_context("spawn"), _start) as pool:
        for number, outcome in enumerate(pool.map(_run, jobs), 1):
            kept = "+".join(name for name, _ in outcome.job.regularizers) or "none"
            print(
                f"{number}/{len(jobs)} {outcome.job.prompt}, {outcome.job.reward}, {kept}: "
                "brightness {:.3f} -> {:.3f}, ".format(*outcome.brightness)
                + "P(z) {:.2g} -> {:.2g}, |s| {:.1f} -> {:.1f}, ".format(
                    *outcome.probability, *outcome.deviation
                )
                + "recognised {:.2f} -> {:.2f}".format(*outcome.recognised),
                flush=True,
            )
            yield outcome


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], path: Path, labels: Sequence[str] = ()):
    """Pictures in named rows on a white sheet, column labels on top."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=15)
    height, width = rows[0][1][0].shape[:2]
    left, top = 130, 24 if labels else 4
    canvas = Image.new(
        "RGB", (left + len(rows[0][1]) * (width + 4), top + len(rows) * (height + 4)), "white"
    )
    draw = ImageDraw.Draw(canvas)
    for column, label in enumerate(labels):
        draw.text((left + column * (width + 4), 4), label, "black", font)
    for row, (name, pictures) in enumerate(rows):
        y = top + row * (height + 4)
        draw.text((6, y + height // 2 - 8), name, "black", font)
        for column, picture in enumerate(pictures):
            canvas.paste(Image.fromarray(picture), (left + column * (width + 4), y))
    canvas.save(path)

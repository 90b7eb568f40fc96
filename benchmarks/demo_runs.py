"""Alignments of the demo checkpoint in this process's ComfyUI, for what a sweep cannot measure."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
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

    def align(self, job: Job, reward=None, gradient=None, kept=None):
        """The history of the DNO Sampler on one job.

        A reward, a gradient, and pairs of weight and regularizer that are given are used instead.
        """
        import torch

        from ComfyUI_DNO import regularizers, rewards
        from ComfyUI_DNO.dno.estimate import Estimated
        from ComfyUI_DNO.dno.objective import Weighted
        from ComfyUI_DNO.nodes.sampler import DNOSampler

        reward = reward or getattr(rewards, job.reward)(**job.reward_fields)
        if gradient is None and job.gradient:
            gradient = Estimated(**job.gradient)
        if kept is None:
            kept = [(weight, getattr(regularizers, name)()) for name, weight in job.regularizers]
        terms = {type(each).__name__: Weighted(weight, each) for weight, each in kept}
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
                terms,  # none at all is none: nothing given would be protected
                gradient=gradient,
            )[1]


def sheet(rows: Sequence[tuple[str, Sequence[np.ndarray]]], path: Path, labels: Sequence[str] = ()):
    """Pictures in named rows on a white sheet, column labels on top."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=15)
    height, width = rows[0][1][0].shape[:2]
    left = 16 + math.ceil(max(font.getlength(name) for name, _ in rows))
    top = 24 if labels else 4
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

"""One alignment of the demo checkpoint, measured: what the benchmarks repeat."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from demo.checkpoint import assemble  # noqa: E402
from demo.classifier import Classifier  # noqa: E402
from tools import inside  # noqa: E402

HOME = Path(os.environ.get("DNO_BENCHMARKS", ROOT / ".comfyui" / "benchmarks"))
CFG, SCHEDULER, SAMPLER = 3.0, "simple", "euler_ancestral"


@dataclass(frozen=True)
class Result:
    """One run, each pair before and after: pictures (1,3,H,W), P(z), worst |s|, recognition."""

    before: object
    after: object
    brightness: tuple[float, float]
    probability: tuple[float, float]
    deviation: tuple[float, float]
    recognised: tuple[float, float]
    seconds: float
    history: object


class Demo:
    """The demo checkpoint in this process's ComfyUI."""

    def __init__(self) -> None:
        inside.start_comfyui(HOME)
        inside.load_pack()
        checkpoint = assemble(HOME / "checkpoints" / "dno_demo.safetensors")
        self.model, self.clip, self.vae = inside.load_checkpoint(checkpoint)
        self.judge = Classifier.load()
        self._empty = self.encode("")

    def encode(self, prompt: str):
        import nodes
        import torch

        with torch.inference_mode():
            return nodes.CLIPTextEncode().encode(self.clip, prompt)[0]

    def run(
        self,
        prompt: str,
        concept: str,
        seed: int,
        reward,
        regularizer=None,
        steps: int = 10,
        iterations: int = 30,
        learning_rate: float = 0.03,
        optimizer=None,
        options=None,
    ) -> Result:
        """The DNO Sampler on one prompt; reward and regularizer are socket values."""
        import torch

        from ComfyUI_DNO.nodes.sampler import DNOSampler

        with torch.inference_mode():
            history = DNOSampler.execute(
                self.model,
                self.encode(prompt),
                self._empty,
                {"samples": torch.zeros(1, 16, 16, 16)},
                self.vae,
                reward,
                seed,
                steps,
                CFG,
                SAMPLER,
                SCHEDULER,
                1.0,
                iterations,
                learning_rate,
                regularizer,
                optimizer,
                options,
            )[1]
        before = history.film.images[0].float() / 255
        after = history.best_image.cpu()
        pictures = torch.cat([before, after])
        with torch.inference_mode():
            recognised = self.judge.recognised(pictures, concept).tolist()
        first, best = history.records[0], int(history.best_step[0])
        last = next(record for record in history.records if record.step == best)
        return Result(
            before,
            after,
            tuple(pictures.mean((1, 2, 3)).tolist()),
            _pair(first, last, "P(z)"),
            _pair(first, last, "spectral deviation"),
            tuple(recognised),
            history.records[-1].seconds,
            history,
        )


def _pair(first, last, name: str) -> tuple[float, float]:
    return float(first.indicators[name]), float(last.indicators[name])

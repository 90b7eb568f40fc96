"""Every preset and the best of N at one budget of network evaluations, on two sets of prompts.

    python run.py exec -- python benchmarks/presets.py [--set confirm] [--rounds 2] [--report]

One evaluation is one picture through the network once, CFG's halves together, forward or backward,
counted at the network. All presets get the same 60 evaluations (six plain samplings of 10 steps);
DNO paper also gets its own 50 iterations, and what the effort "thorough" costs is let run. Three of
the rewards ask for what plain seeds hardly draw: two halves of opposite tone, a palette, a style.
"tune" is for choosing settings; nothing was chosen on "confirm".

Every finished run is a line of presets.jsonl beside this file, with its picture in the home folder
of the benchmarks: a second start goes on where the first one ended. --report writes presets.md and
presets.jpg from what is there. A round is one prompt for every reward, about half an hour of
one processor thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from demo_runs import CFG, SCHEDULER, SIZE, Demo
from presets_table import (
    BUDGET,
    LONG,
    LONG_PAPER,
    METHODS,
    PAPER,
    REWARDS,
    ROWS,
    SEEDS,
    SETS,
    STEPS,
    STOCHASTIC,
    picture_file,
    read_rows,
    report,
)  # fmt: skip


class Halves:
    """The left half dark and the right half bright: 1 if it is all black and white."""

    differentiable = True

    def __call__(self, image):
        middle = image.shape[-1] // 2
        return image[..., middle:].mean((1, 2, 3)) - image[..., :middle].mean((1, 2, 3))


def rewards_of(demo: Demo) -> dict:
    """Name -> {term: Weighted}, built once."""
    import torch

    from ComfyUI_DNO import rewards
    from ComfyUI_DNO.dno.objective import Weighted
    from ComfyUI_DNO.rewards import models
    from ComfyUI_DNO.rewards.models.files import Stored
    from demo import reward_model

    stored = {name: value.float() for name, value in reward_model.state_dict().items()}
    clip = models.build(Stored(reward_model.WEIGHTS, stored)).float().eval().requires_grad_(False)
    import comfy
    from transformers import CLIPTokenizer

    clip.tokenizer = CLIPTokenizer.from_pretrained(Path(comfy.__path__[0]) / "sd1_tokenizer")
    shown = [reference(demo, text, seed) for text, seed in (
        ("a sunflower on a purple background", 501), ("a castle on an orange background", 502),
    )]  # fmt: skip

    def text(words: str):
        return rewards.CLIPTextSimilarity(clip, words)

    def one(score) -> dict:
        return {"reward": Weighted(1.0, score)}

    with torch.inference_mode(False), torch.no_grad():
        return {
            "darkness": one(rewards.Darkness()),
            "text": one(text("an icon on a blue background")),
            "palette": one(rewards.Palette(shown[0])),
            "style": one(rewards.StyleSimilarity(clip, shown[1])),
            "combination": {
                "darkness": Weighted(1.0, rewards.Darkness()),
                "text": Weighted(1.0, text("an icon on a red background")),
            },
            "halves": one(Halves()),
        }


def reference(demo: Demo, prompt: str, seed: int):
    """A plain picture (1,3,H,W) to be like."""
    import nodes
    import torch

    with torch.inference_mode():
        latent = nodes.common_ksampler(
            demo.model, seed, 20, CFG, "euler_ancestral", SCHEDULER, demo.encode(prompt),
            demo.encode(""), {"samples": torch.zeros(1, 16, SIZE, SIZE)},
        )[0]  # fmt: skip
        picture = demo.vae.decode(latent["samples"]).movedim(-1, 1)
    with torch.inference_mode(False):
        return picture.clone().float().clamp(0, 1)


class Counter:
    """Evaluations of the network, forward and backward, in pictures; CFG's two halves count one.

    In an array, for a sampling puts plain numbers back to what they were before it.
    """

    def __init__(self):
        self._rows = np.zeros(1)

    def on(self, model):
        """A copy of a MODEL that counts here."""
        import torch

        rows = self._rows

        class Counted(torch.autograd.Function):
            @staticmethod
            def forward(context, value):
                return value.view_as(value)

            @staticmethod
            def backward(context, gradient):
                rows[0] += len(gradient)
                return gradient

        def call(apply_model, arguments):
            rows[0] += len(arguments["input"])
            given = (arguments["input"], arguments["timestep"])
            return Counted.apply(apply_model(*given, **arguments["c"]))

        counted = model.clone()
        counted.set_model_unet_function_wrapper(call)
        return counted

    @property
    def evaluations(self) -> float:
        return float(self._rows[0]) / 2


class Spent:
    """A stopping rule: ends a run whose next iteration would pass the budget."""

    def __init__(self, counter: Counter, budget: float):
        self.counter, self.budget, self.at = counter, budget, []

    def __call__(self, history) -> str | None:
        self.at.append(self.counter.evaluations)
        last = self.at[-1] - self.at[-2] if len(self.at) > 1 else STEPS
        return "the budget is spent" if self.at[-1] + max(last, STEPS) > self.budget else None


def run(demo: Demo, name: str, terms: dict, prompt: str, seed: int) -> tuple[dict, np.ndarray]:
    """One preset on one problem: the numbers and the best picture."""
    import torch

    from ComfyUI_DNO.dno.presets import PRESETS
    from ComfyUI_DNO.nodes.host.sampling.job import objective, prepare
    from ComfyUI_DNO.nodes.options import Options
    from ComfyUI_DNO.nodes.plan import of_preset, planned
    from ComfyUI_DNO.nodes.sampler import INDICATORS, align

    title = PAPER if name == LONG_PAPER else name
    budget = {LONG_PAPER: LONG, "thorough": math.inf}.get(name, BUDGET)
    counter = Counter()
    rule = Spent(counter, budget)
    options = replace(Options(), plan=of_preset(PRESETS[title], ""))
    settings, penalties = planned(options, "fast", -1, 0.01, None, None, None)
    settings = replace(settings, stopping=(rule,))
    stochastic = title in STOCHASTIC or title == SEEDS
    with torch.inference_mode():
        job = prepare(
            counter.on(demo.model), demo.encode(prompt), demo.encode(""),
            {"samples": torch.zeros(1, 16, SIZE, SIZE)}, seed, STEPS, CFG,
            "euler_ancestral" if stochastic else "euler", SCHEDULER, 1.0,
        )  # fmt: skip
        start = time.process_time()
        _, climbed = align(job, demo.vae, objective(terms, penalties, INDICATORS), settings, seed)
        seconds = time.process_time() - start
        picture = climbed.history.best.image.cpu()
        recognised = float(demo.judge.recognised(picture, prompt.split()[-1])[0])
    history, rewards = climbed.history, [float(r.reward) for r in climbed.history.records]
    best = next(r for r in history.records if r.step == int(history.best.step[0]))
    record = {
        "reward_value": max(rewards),
        "evaluations": counter.evaluations,
        "seconds": round(seconds, 2),
        "curve": [[spent, value] for spent, value in zip(rule.at, rewards, strict=False)],
        "probability": float(best.indicators["P(z)"]),
        "deviation": float(best.indicators["spectral deviation"]),
        "recognised": recognised,
        "iterations": len(rewards) - 1,
    }
    return record, (picture[0].permute(1, 2, 0) * 255).round().byte().numpy()


def measure(chosen: str, rounds: int, methods: tuple[str, ...]) -> None:
    demo = Demo()
    terms = rewards_of(demo)
    done = {(r["set"], r["reward"], r["prompt"], r["method"]) for r in read_rows()}
    for prompt, seed in SETS[chosen][:rounds]:
        for method in methods:
            for reward in REWARDS:
                if (chosen, reward, prompt, method) in done:
                    continue
                record, picture = run(demo, method, terms[reward], prompt, seed)
                row = {"set": chosen, "reward": reward, "prompt": prompt, "method": method} | record
                path = picture_file(row)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, picture)
                with ROWS.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
                print(
                    f"{prompt}, {reward}, {method}: {record['curve'][0][1]:.3f} -> "
                    f"{record['reward_value']:.3f}, {record['evaluations']:.0f} evaluations, "
                    f"{record['seconds']:.0f} s, recognised {record['recognised']:.2f}",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="confirm", choices=SETS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if not arguments.report:
        measure(arguments.set, arguments.rounds, tuple(arguments.methods))
    print(report(arguments.set))


if __name__ == "__main__":
    main()

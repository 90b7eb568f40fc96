"""Every preset and the best of N at one budget of network evaluations, on two sets of prompts.

    python run.py exec -- python benchmarks/presets.py [--set confirm] [--rounds 2] [--report]

One evaluation is one picture through the network once, CFG's halves together, forward or backward,
counted at the network. All presets get the same 60 evaluations (six plain samplings of 10 steps);
DNO paper also gets its own 50 iterations, and what the effort "thorough" costs is let run. Three of
the rewards ask for what plain seeds hardly draw: two halves of opposite tone, a palette, a style.
"tune" is for choosing settings; nothing was chosen on "confirm".

Every finished run is a line of presets.jsonl beside this file, with its picture in the home folder
of the benchmarks: a second start goes on where the first one ended. --report writes presets.md,
presets.jpg and the curves of presets.png from what is there. A round is one prompt for every
reward, about half an hour of one processor thread.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from demo_runs import CFG, HOME, ROOT, SCHEDULER, SIZE, Demo
from presets_problems import rewards_of
from presets_settings import (
    BUDGET,
    FAST,
    LINEAR,
    LONG,
    LONG_PAPER,
    LONG_SEEDS,
    METHODS,
    PAPER,
    POLISHED,
    REWARDS,
    ROWS,
    SEEDS,
    SETS,
    STEPS,
    STOCHASTIC,
    VARIANTS,
)  # fmt: skip
from presets_table import picture_file, read_rows, report

if TYPE_CHECKING:
    from ComfyUI_DNO.dno.history import History


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


@dataclass(frozen=True)
class Run:
    """What a run gave, its network evaluations and processor seconds, and where each ended."""

    history: History
    evaluations: float
    seconds: float
    at: list[float]


def run(demo: Demo, name: str, terms: dict, prompt: str, seed: int) -> Run:
    """One preset on one problem, within its budget."""
    import torch

    from ComfyUI_DNO.dno.presets import PRESETS
    from ComfyUI_DNO.dno.search import BestOf
    from ComfyUI_DNO.nodes.host.sampling.job import objective, prepare
    from ComfyUI_DNO.nodes.options import Options
    from ComfyUI_DNO.nodes.plan import of_preset, planned
    from ComfyUI_DNO.nodes.sampler import INDICATORS, align
    from ComfyUI_DNO.regularizers import Probability

    title = {LONG_PAPER: PAPER, LONG_SEEDS: SEEDS}.get(name, name)
    title = FAST if title in VARIANTS else title
    budgets = {LONG_PAPER: LONG, LONG_SEEDS: LONG, "thorough": math.inf, POLISHED: BUDGET + STEPS}
    budget = budgets.get(name, BUDGET)
    counter = Counter()
    rule = Spent(counter, budget)
    options = replace(Options(), plan=of_preset(PRESETS[title], ""))
    settings, penalties = planned(options, "fast", -1, 0.01, None, None, None)
    settings = replace(settings, stopping=(rule,))
    if name == POLISHED:
        settings = replace(settings, method=replace(settings.method, polish=Probability()))
    if name == LINEAR:
        settings = replace(settings, directions="linear")
    if title == SEEDS:
        settings = replace(settings, method=BestOf(budget // STEPS))
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
    return Run(climbed.history, counter.evaluations, round(seconds, 2), rule.at)


def row_of(demo: Demo, done: Run, prompt: str) -> dict:
    """The numbers of a run."""
    history, rewards = done.history, [float(r.reward) for r in done.history.records]
    best = next(r for r in history.records if r.step == int(history.best.step[0]))
    judged = demo.judge.recognised(history.best.image.cpu(), prompt.split()[-1])
    return {
        "reward_value": max(rewards),
        "evaluations": done.evaluations,
        "seconds": done.seconds,
        "curve": [[spent, value] for spent, value in zip(done.at, rewards, strict=False)],
        "probability": float(best.indicators["P(z)"]),
        "deviation": float(best.indicators["spectral deviation"]),
        "recognised": float(judged[0]),
        "iterations": len(rewards) - 1,
    }


def seeds(demo: Demo, terms: dict, prompt: str, seed: int) -> dict[str, dict]:
    """Reward -> the best of as many seeds as the paper's whole budget draws.

    The seeds are the same for all rewards, so that each is drawn once and scored by all.
    """
    every = {f"{r}, {n}": term for r, named in terms.items() for n, term in named.items()}
    done, rows = run(demo, LONG_SEEDS, every, prompt, seed), {}
    for reward, named in terms.items():
        values = [
            sum(term.weight * float(record.terms[f"{reward}, {n}"]) for n, term in named.items())
            for record in done.history.records
        ]
        curve = [[spent, value] for spent, value in zip(done.at, values, strict=False)]
        took = {"evaluations": done.evaluations, "seconds": done.seconds}
        rows[reward] = {"reward_value": max(values), "curve": curve, **took}
    return rows


def measure(chosen: str, rounds: int, methods: tuple[str, ...]) -> None:
    demo = Demo()
    terms = rewards_of(demo)
    done = {(r["set"], r["reward"], r["prompt"], r["method"]) for r in read_rows()}
    for prompt, seed in SETS[chosen][:rounds]:
        for method in methods:
            missing = [r for r in REWARDS if (chosen, r, prompt, method) not in done]
            if missing and method == LONG_SEEDS:
                for reward, row in seeds(demo, terms, prompt, seed).items():
                    _written({"set": chosen, "reward": reward, "prompt": prompt} | row, method)
                continue
            for reward in missing:
                ran = run(demo, method, terms[reward], prompt, seed)
                row = {"set": chosen, "reward": reward, "prompt": prompt}
                row = _written(row | row_of(demo, ran, prompt), method)
                picture = ran.history.best.image[0].cpu().permute(1, 2, 0) * 255
                path = picture_file(row)
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, picture.round().byte().numpy())


def _written(row: dict, method: str) -> dict:
    """A line of presets.jsonl, and one for who waits."""
    row["method"] = method
    with ROWS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(
        "{prompt}, {reward}, {method}: {start:.3f} -> {reward_value:.3f}, {evaluations:.0f} "
        "evaluations, {seconds:.0f} s".format(start=row["curve"][0][1], **row),
        flush=True,
    )
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", default="confirm", choices=SETS)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--report", action="store_true")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if arguments.report:
        sys.path.insert(0, str(ROOT))
        from tools import inside

        inside.start_comfyui(HOME / str(os.getpid()))
        inside.load_pack()  # for its drawing
    else:
        measure(arguments.set, arguments.rounds, tuple(arguments.methods))
    print(report(arguments.set))


if __name__ == "__main__":
    main()

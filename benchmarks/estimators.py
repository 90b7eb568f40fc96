"""Which estimated gradient gets furthest for the same number of denoiser evaluations?

    python run.py exec -- python benchmarks/estimators.py

Rewards without a gradient by Hybrid-1, Hybrid-2 and zeroth order, each with its defaults, against
the best of N plain samplings; Darkness too, its gradient hidden, beside its exact gradient. One
evaluation is one picture through the network once: under CFG both halves together, for everyone
alike, forward or backward. They are counted at the network, in every run. No regularizer, for none
has a part in the best of N. Writes estimators.json, estimators.md and estimators.jpg beside this
file; about twenty-five minutes of one processor thread.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from demo_runs import CFG, SAMPLER, SCHEDULER, SIZE, Demo, Job, sheet

PROMPTS = (("a cat", 2), ("a penguin", 3), ("a frog", 1), ("a car", 7), ("a house", 11))
REWARDS = ("JPEGCompressibility", "JPEGIncompressibility", "Darkness")
METHODS = ("hybrid-1", "hybrid-2", "zeroth order")
BEST, EXACT = "best of N", "exact gradient"
BUDGETS = (120, 240, 480)
STEPS, SAMPLES = 8, 8  # of one sampling; perturbed samplings of an iteration, the default
ONCE = 2 * STEPS  # the first iteration computes its steps twice, the best is sampled once more
PER_ITERATION = {  # in memory enough to keep the steps: there and back
    EXACT: 2 * STEPS,
    "hybrid-1": 2 * STEPS,
    "hybrid-2": (2 + SAMPLES) * STEPS,
    "zeroth order": (1 + SAMPLES) * STEPS,
}


@dataclass
class Counter:
    """Evaluations of the network, forward and backward, in pictures; CFG's two halves count one."""

    rows: int = 0

    def on(self, model):
        """A copy of a MODEL that counts here."""
        import torch

        counter = self

        class Counted(torch.autograd.Function):
            @staticmethod
            def forward(context, value):
                return value.view_as(value)

            @staticmethod
            def backward(context, gradient):
                counter.rows += len(gradient)
                return gradient

        def call(apply_model, arguments):
            self.rows += len(arguments["input"])
            return Counted.apply(
                apply_model(arguments["input"], arguments["timestep"], **arguments["c"])
            )

        counted = model.clone()
        counted.set_model_unet_function_wrapper(call)
        return counted

    @property
    def evaluations(self) -> float:
        return self.rows / 2


@dataclass
class Climb:
    """Best reward so far at each number of evaluations, and the picture at the end.

    seconds: of the processor.
    """

    prompt: str
    reward: str
    method: str
    spent: list[int]
    best: list[float]
    seconds: float
    picture: np.ndarray = field(repr=False)

    def at(self, budget: int) -> float:
        within = [
            best for spent, best in zip(self.spent, self.best, strict=True) if spent <= budget
        ]
        return within[-1] - self.best[0]

    def numbers(self) -> dict:
        record = asdict(self)
        record.pop("picture")
        return record


def blind(reward):
    """The same reward with its gradient hidden, as a program that only answers a number."""

    from ComfyUI_DNO.dno.objective import Reward

    class Blind(Reward):
        differentiable = False

        def __call__(self, image):
            return reward(image)

    return Blind()


def climb(demo: Demo, prompt: str, seed: int, name: str, method: str) -> Climb:
    """One run of the DNO Sampler whose iterations fill the largest budget."""
    from ComfyUI_DNO import rewards
    from ComfyUI_DNO.dno.estimate import Estimated

    plain, counter = demo.model, Counter()
    once = 0 if method == "zeroth order" else ONCE
    iterations = (BUDGETS[-1] - STEPS - once) // PER_ITERATION[method]
    reward = getattr(rewards, name)()
    job = Job(prompt, prompt.split()[-1], seed, name, steps=STEPS, iterations=iterations)
    demo.model, start = counter.on(plain), time.process_time()
    try:
        if method == EXACT:
            history = demo.align(job, reward)
        else:
            history = demo.align(job, blind(reward), Estimated(method))
    finally:
        demo.model = plain
    made = range(1, len(history.records))
    spent = [STEPS, *(STEPS + once + PER_ITERATION[method] * step for step in made)]
    if not spent[-1] - STEPS <= counter.evaluations <= spent[-1]:
        raise RuntimeError(f"{method}: {counter.evaluations} evaluations, {spent[-1]} expected.")
    best = np.maximum.accumulate([float(record.reward) for record in history.records]).tolist()
    picture = _levels(history.best.image)[0]
    return Climb(prompt, name, method, spent, best, time.process_time() - start, picture)


def best_of_n(demo: Demo, prompt: str, seed: int) -> list[Climb]:
    """Plain samplings of KSampler from the seed on, one pool for all rewards."""
    import nodes
    import torch

    from ComfyUI_DNO import rewards

    counter, pictures, start = Counter(), [], time.process_time()
    model = counter.on(demo.model)
    with torch.inference_mode():
        positive, negative = demo.encode(prompt), demo.encode("")
        latent = {"samples": torch.zeros(1, 16, SIZE, SIZE)}
        for number in range(BUDGETS[-1] // STEPS):
            sampled = nodes.common_ksampler(
                model, seed + number, STEPS, CFG, SAMPLER, SCHEDULER, positive, negative, latent
            )[0]
            pictures.append(demo.vae.decode(sampled["samples"]).movedim(-1, 1))
    seconds, images = time.process_time() - start, torch.cat(pictures)
    spent = [STEPS * (number + 1) for number in range(len(images))]
    if counter.evaluations != spent[-1]:
        raise RuntimeError(f"{BEST}: {counter.evaluations} evaluations, {spent[-1]} expected.")
    climbs = []
    for name in REWARDS:
        scores = getattr(rewards, name)()(images)
        best = scores.cummax(0).values.tolist()
        picture = _levels(images[scores.argmax()][None])[0]
        climbs.append(Climb(prompt, name, BEST, spent, best, seconds, picture))
        start_picture = _levels(images[:1])[0]
        climbs.append(Climb(prompt, name, "start", spent[:1], best[:1], 0.0, start_picture))
    return climbs


def _levels(images) -> np.ndarray:
    """(B,3,H,W) in [0,1] -> (B,H,W,3) uint8."""
    return images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()


def table_of(climbs: list[Climb]) -> list[str]:
    names = {"JPEGCompressibility": "JPEG smaller, kB", "JPEGIncompressibility": "JPEG larger, kB"}
    lines = [
        "| reward | method | " + " | ".join(f"{b} evaluations" for b in BUDGETS) + " |",
        "|---|---|" + "---|" * len(BUDGETS),
    ]
    for name in REWARDS:
        for method in (*METHODS, BEST, EXACT):
            group = [c for c in climbs if (c.reward, c.method) == (name, method)]
            if not group:
                continue
            cells = [_spread([c.at(budget) for c in group]) for budget in BUDGETS]
            lines.append(f"| {names.get(name, name)} | {method} | {' | '.join(cells)} |")
    return lines


def _spread(values: list[float]) -> str:
    error = stdev(values) / len(values) ** 0.5 if len(values) > 1 else 0.0
    return f"{mean(values):+.2f} ± {error:.2f}"


def report(climbs: list[Climb]) -> None:
    """Write table, numbers and pictures (of the JPEG rewards) beside this file."""
    prompts = dict.fromkeys(made.prompt for made in climbs)
    said = f"Gain over the seed's own picture; mean ± standard error of {len(prompts)} prompts."
    here, table = Path(__file__).resolve().parent, "\n".join([*table_of(climbs), "", said])
    (here / "estimators.md").write_text(table + "\n", encoding="utf-8")
    (here / "estimators.json").write_text(
        json.dumps([c.numbers() for c in climbs], indent=1), encoding="utf-8"
    )
    columns = [(name, prompt) for name in REWARDS[:2] for prompt in prompts]
    found = {(c.method, (c.reward, c.prompt)): c.picture for c in climbs}
    rows = [(m, [found[m, column] for column in columns]) for m in ("start", BEST, *METHODS)]
    labels = ["smaller" if name == REWARDS[0] else "larger" for name, _ in columns]
    sheet(rows, here / "estimators.jpg", labels)
    print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=int, default=len(PROMPTS))
    arguments = parser.parse_args()
    demo, climbs = Demo(), []
    for prompt, seed in PROMPTS[: arguments.prompts]:
        climbs += best_of_n(demo, prompt, seed)
        for name in REWARDS:
            for method in (*METHODS, *([EXACT] if name == "Darkness" else [])):
                climbs.append(climb(demo, prompt, seed, name, method))
                made = climbs[-1]
                print(f"{prompt}, {name}, {method}: {made.at(BUDGETS[-1]):+.3f}", flush=True)
    report(climbs)


if __name__ == "__main__":
    main()

"""The benchmark suite: the best of 256 seeds and every way to climb, on rewards of three classes.

    python run.py exec -- python benchmarks/suite.py            (prompts on which to choose)
    python run.py exec -- python benchmarks/suite.py --set kept (the others, to report)

Every finished run is a line of a file in .comfyui/benchmarks that is named by the weights, so an
interrupted suite goes on where it stopped; suite_SET.md is written beside this file. All of it
takes a day of a CPU core: --cases, --methods, --prompts, --seeds and --iterations make it smaller.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from hashlib import sha256
from multiprocessing import get_context
from pathlib import Path

from demo_runs import CFG, HOME, ROOT, SAMPLER, SCHEDULER, SIZE, Demo, Job
from suite_cases import CASES, ITERATIONS, METHODS, SEEDS, SETS, Case, Kit, Method
from suite_table import BASELINE, Run, table

STEPS = 8


class Suite:
    """The demo checkpoint, its CLIP and its judges in this process."""

    def __init__(self) -> None:
        self.demo = Demo()
        from ComfyUI_DNO import rewards
        from ComfyUI_DNO.dno.objective import Weighted
        from ComfyUI_DNO.nodes.reward_models import DNOLoadRewardModel
        from demo import quality, reward_model, scene_judge

        self._judges = {}
        if scene_judge.WEIGHTS.exists():
            self._judges["found"] = scene_judge.SceneJudge.load().recognised
        if quality.WEIGHTS.exists():
            clean = quality.Quality.load().clean
            self._judges["quality"] = lambda pictures, _: clean(pictures)
        clip = reward_model.assemble(HOME / "reward_models" / "dno_demo_clip.safetensors")
        import folder_paths
        import torch

        folder_paths.add_model_folder_path("reward_models", str(clip.parent))
        with torch.inference_mode():
            (network,) = DNOLoadRewardModel.execute(clip.name).result
        self._kit = Kit(rewards, Weighted, network)

    def run(self, run: Run) -> dict:
        """The figures of one run, before (the first seed's picture) and after."""
        case = next(case for case in CASES if case.name == run.case)
        thing = run.prompt.split()[-1]
        reward = case.build(self._kit, thing)
        if run.method == BASELINE:
            return self._best_of(run, reward, thing)
        method = next(method for method in METHODS if method.name == run.method)
        return self._climb(run, case, method, reward, thing)

    def _climb(self, run: Run, case: Case, method: Method, reward, thing: str) -> dict:
        import torch

        from ComfyUI_DNO import regularizers
        from ComfyUI_DNO.dno.estimate import Estimated

        terms = [(w, getattr(regularizers, n)(**f)) for n, w, f in method.regularizers]
        job = Job(
            run.prompt, thing, run.seed, case.name, steps=STEPS, iterations=run.size,
            learning_rate=method.learning_rate,
        )  # fmt: skip
        gradient = Estimated(**case.gradient) if case.gradient else None
        history = self.demo.align(job, reward, gradient, terms)
        pictures = torch.cat([history.film.images[0].float() / 255, history.best_image.cpu()])
        ends = history.records[0], history.records[int(history.best_step[0])]
        figures = {
            "reward": [float(record.reward) for record in ends],
            "probability": [float(record.indicators["P(z)"]) for record in ends],
            "deviation": [float(record.indicators["spectral deviation"]) for record in ends],
        }
        return figures | self._judged(pictures, thing)

    def _best_of(self, run: Run, reward, thing: str) -> dict:
        import torch

        pictures = self._pool(run)
        with torch.no_grad():
            scores = [float(reward(picture[None])[0]) for picture in pictures]
        best = scores.index(max(scores))
        return {"reward": [scores[0], scores[best]]} | self._judged(pictures[[0, best]], thing)

    def _pool(self, run: Run):
        """The plain pictures (seeds, 3, H, W) of a prompt, drawn once for all rewards."""
        import torch

        name = f"{run.prompt.replace(' ', '_')}_{run.seed}_{run.size}.pt"
        path = HOME / f"seeds_{_weights()}" / name
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            seeds = range(run.seed, run.seed + run.size)
            pictures = torch.cat([self._plain(run.prompt, seed) for seed in seeds])
            temporary = path.with_suffix(f".{os.getpid()}")
            torch.save((pictures * 65535).round().to(torch.uint16), temporary)
            os.replace(temporary, path)
        return torch.load(path, weights_only=True).float() / 65535

    def _plain(self, prompt: str, seed: int):
        import comfy.utils
        import nodes
        import torch

        comfy.utils.set_progress_bar_enabled(False)
        with torch.inference_mode():
            latent = {"samples": torch.zeros(1, 16, SIZE, SIZE)}
            (latent,) = nodes.KSampler().sample(
                self.demo.model, seed, STEPS, CFG, SAMPLER, SCHEDULER,
                self.demo.encode(prompt), self.demo.encode(""), latent,
            )  # fmt: skip
            picture = self.demo.vae.decode(latent["samples"]).movedim(-1, 1)
        return picture.clone()

    def _judged(self, pictures, thing: str) -> dict:
        import torch

        with torch.inference_mode():
            seen = {"recognised": self.demo.judge.recognised(pictures, thing).tolist()}
            for name, judge in self._judges.items():
                seen[name] = judge(pictures, thing).tolist()
        return seen


def runs_of(arguments: argparse.Namespace) -> list[Run]:
    """All that was asked for, prompt after prompt, so that pairs are complete early."""
    prompts = SETS[arguments.set][: arguments.prompts]
    runs = []
    for prompt, seed in prompts:
        for case in CASES:
            if case.name in arguments.cases or case.kind in arguments.cases:
                runs.append(Run(case.name, BASELINE, prompt, seed, arguments.seeds))
                runs += [
                    Run(case.name, name, prompt, seed, arguments.iterations)
                    for name in arguments.methods
                ]
    return runs


_suite: Suite | None = None


def _start() -> None:
    global _suite
    os.environ["OMP_NUM_THREADS"] = "1"
    _suite = Suite()


def _run(run: Run) -> dict:
    assert _suite is not None
    return _suite.run(run)


def outcomes(runs: Sequence[Run], path: Path, workers: int) -> Iterator[tuple[Run, dict]]:
    """Every run with its figures, read from the file where it is finished."""
    done = {}
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines()
        done = {line["key"]: line["figures"] for line in map(json.loads, lines)}
    left = [run for run in runs if run.key not in done]
    yield from ((run, done[run.key]) for run in runs if run.key in done)
    if not left:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(workers, get_context("spawn"), _start) as pool:
        for number, (run, figures) in enumerate(zip(left, pool.map(_run, left), strict=True), 1):
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": run.key, "figures": figures}) + "\n")
            before, after = figures["reward"]
            print(f"{number}/{len(left)} {run.key}: {before:.3f} -> {after:.3f}", flush=True)
            yield run, figures


def main() -> None:
    arguments = _arguments()
    path = HOME / f"suite_{_weights()}.jsonl"
    results = list(outcomes(runs_of(arguments), path, arguments.workers))
    text = "\n".join(table(results)) + "\n"
    (Path(__file__).resolve().parent / f"suite_{arguments.set}.md").write_text(text, "utf-8")
    print(text)


def _weights() -> str:
    """Names the checkpoint that the figures are of."""
    return sha256((ROOT / "demo" / "weights.safetensors").read_bytes()).hexdigest()[:8]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    names = [case.name for case in CASES]
    kinds = sorted({case.kind for case in CASES})
    methods = [method.name for method in METHODS]
    parser.add_argument("--set", choices=SETS, default="choosing")
    parser.add_argument("--cases", nargs="+", choices=[*kinds, *names], default=kinds)
    parser.add_argument("--methods", nargs="*", choices=methods, default=methods)
    parser.add_argument("--prompts", type=int, default=None, help="the first so many")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--iterations", type=int, default=ITERATIONS)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    return parser.parse_args()


if __name__ == "__main__":
    main()

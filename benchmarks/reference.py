"""What an iteration costs beside the plainest implementation of the method, in processor seconds.

    python run.py exec -- python benchmarks/reference.py

The reference is the paper's algorithm in thirty lines of torch on the same weights in the same
process, as its authors and ReNO's write it: a loop of Euler steps in which each call of the network
is checkpointed, or, for one step, everything recorded; the decoder recorded; Adam, each image's
gradient clipped. A long run less a short one, by their iterations: what starts and ends a run is
not counted. Runs alternate, so that all meet the same load. Writes reference.md beside this file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median

from demo_runs import CFG, HOME, SIZE, Demo

SHORT, LONG, REPEATS = 2, 10, 3  # iterations of the two runs, and how often
CASES = (  # steps of the sampling, level of memory of ours, what the reference records
    (10, "automatic", "a step at a time"),
    (10, "least", "a step at a time"),
    (1, "automatic", "everything"),
    (1, "least", "everything"),
)


class Reference:
    """The method written down plainly; everything: whether each step is recorded whole."""

    def __init__(self, demo: Demo):
        self.vae, self.model = demo.vae, demo.model
        self._inner, self._call = _arguments(demo)

    def __call__(self, steps: int, everything: bool, iterations: int) -> float:
        """Darkness of the last picture."""
        from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules

        with ordinary_modules([self._inner, self.vae.first_stage_model]):
            return self._climbed(steps, everything, iterations)

    def _climbed(self, steps: int, everything: bool, iterations: int) -> float:
        import torch

        noise = torch.randn(1, 16, SIZE, SIZE, generator=torch.Generator().manual_seed(7))
        noise.requires_grad_()
        adam = torch.optim.Adam([noise], lr=0.01)
        for _ in range(iterations):
            darkness = self._darkness(noise, steps, everything)
            adam.zero_grad()
            (-darkness).backward()
            torch.nn.utils.clip_grad_norm_([noise], 1.0)
            adam.step()
        with torch.no_grad():
            return float(self._darkness(noise, steps, True))

    def _darkness(self, noise, steps: int, everything: bool):
        from torch.utils.checkpoint import checkpoint

        sigmas = _sigmas(self.model, steps)
        x = noise * sigmas[0]
        for sigma, following in zip(sigmas[:-1], sigmas[1:], strict=True):
            if everything:
                denoised = self._denoised(x, sigma)
            else:
                denoised = checkpoint(self._denoised, x, sigma, use_reentrant=False)
            x = x + (x - denoised) / sigma * (following - sigma)
        latent = self._inner.latent_format.process_out(x)
        image = self.vae.first_stage_model.decode(latent).clamp(-1, 1) / 2 + 0.5
        return 1 - image.mean()

    def _denoised(self, x, sigma):
        import torch

        both = self._inner.apply_model(torch.cat([x, x]), sigma.expand(2), **self._call)
        prompt, empty = both.chunk(2)
        return empty + (prompt - empty) * CFG


def _sigmas(model, steps: int):
    import comfy.samplers

    return comfy.samplers.KSampler(
        model, steps=steps, device="cpu", sampler="euler", scheduler="simple"
    ).sigmas


def _arguments(demo: Demo):
    """The network, and what ComfyUI hands it beside sample and time, prompt first."""
    import nodes
    import torch

    seen = {}

    def look(apply_model, given):
        chosen = sorted(range(2), key=lambda row: given["cond_or_uncond"][row])
        held = {
            name: value[chosen].clone() if isinstance(value, torch.Tensor) else value
            for name, value in given["c"].items()
            if name != "transformer_options"
        }
        seen.update(held)
        return apply_model(given["input"], given["timestep"], **given["c"])

    model = demo.model.clone()
    model.set_model_unet_function_wrapper(look)
    empty = {"samples": torch.zeros(1, 16, SIZE, SIZE)}
    with torch.inference_mode(False), torch.no_grad():
        prompts = demo.encode("a cat"), demo.encode("")
        nodes.common_ksampler(model, 7, 1, CFG, "euler", "simple", *prompts, empty)
        return model.model, {name: _plain(value) for name, value in seen.items()}


def _plain(value):
    """An ordinary tensor, also of one made in inference mode."""
    return value.clone() if hasattr(value, "clone") else value


def ours(demo: Demo, steps: int, memory: str, iterations: int) -> None:
    import torch

    from ComfyUI_DNO.dno.objective import Weighted
    from ComfyUI_DNO.nodes.options import Options
    from ComfyUI_DNO.nodes.sampler import DNOSampler
    from ComfyUI_DNO.rewards import Darkness

    with torch.inference_mode():
        DNOSampler.execute(
            demo.model, demo.encode("a cat"), demo.encode(""),
            {"samples": torch.zeros(1, 16, SIZE, SIZE)}, demo.vae,
            {"Darkness": Weighted(1.0, Darkness())}, 7, steps, CFG, "euler", "simple", 1.0,
            iterations, 0.01, {}, options=Options(memory=memory),
        )  # fmt: skip


def per_iteration(climb: Callable[[int], object]) -> float:
    """Processor seconds of one iteration."""

    def seconds(iterations: int) -> float:
        start = time.process_time()
        climb(iterations)
        return time.process_time() - start

    return (seconds(LONG) - seconds(SHORT)) / (LONG - SHORT)


def main() -> None:
    demo = Demo()
    reference = Reference(demo)
    rows = ["| steps | memory | beside a reference that records | its processor seconds | ratio |"]
    rows.append("|---|---|---|---|---|")
    for steps, memory, records in CASES:
        mine, theirs = [], []
        for _ in range(REPEATS):
            mine.append(per_iteration(partial(ours, demo, steps, memory)))
            theirs.append(per_iteration(partial(reference, steps, records == "everything")))
        cells = f"{median(theirs):.2f} | {median(mine) / median(theirs):.2f}"
        rows.append(f"| {steps} | {memory} | {records} | {cells} |")
        print(rows[-1], flush=True)
    text = "\n".join(rows) + "\n"
    (Path(__file__).resolve().parent / "reference.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    HOME.mkdir(parents=True, exist_ok=True)
    main()

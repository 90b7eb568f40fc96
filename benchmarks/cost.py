"""Time and memory of one iteration, as ratios to plain sampling in the same run.

    python run.py exec -- python benchmarks/cost.py

T F is one plain sampling of T steps. An iteration needs a sampling and its backward: 2 T F where
all steps are kept, 3 T F where whole steps or blocks are computed twice, 4 T F where blocks are
computed again within steps that are. Beside it stands what waits for backward after a sampling.
Decoding, reward, regularizers and read-outs come on top, once per iteration. Seconds are the
processor's, and each ratio the median of five rounds', so that other work on the machine hardly
counts. Writes cost.md beside this file.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from operator import truediv
from pathlib import Path
from statistics import median

from demo_runs import CFG, HOME, ROOT, SIZE, Demo
from live import inside, pull

REPEATS = 5
LEVELS = ("RECORDED", "CALL", "KEPT", "NESTED", "SPLIT")


def main() -> None:
    demo = Demo()
    names = ("recorded", "call", "blocks", "blocks in calls", "one prompt after the other")
    rows = [f"| model | steps | {' | '.join(names)} |", f"|---|---|{'---|' * len(names)}"]
    for name, guider, latent in (_demo_checkpoint(demo), _random_unet()):
        for steps in (5, 10, 20):
            rows.append(_row(name, guider, latent, steps))
            print(rows[-1], flush=True)
    text = "\n".join(rows) + "\n"
    (Path(__file__).resolve().parent / "cost.md").write_text(text, encoding="utf-8")


def _demo_checkpoint(demo: Demo):
    import comfy.samplers
    import torch

    guider = comfy.samplers.CFGGuider(demo.model)
    guider.set_conds(demo.encode("a cat"), demo.encode(""))
    guider.set_cfg(CFG)
    return "demo checkpoint, 128 px", guider, torch.zeros(1, 16, SIZE, SIZE)


def _random_unet():
    """A random UNet of SD1.5's kind, 25 times the size of the tests'."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "support"))
    import tiny

    tiny.UNET.update(model_channels=96, channel_mult=[1, 2, 4], num_res_blocks=[1, 1, 1])
    tiny.UNET.update(transformer_depth=[1, 1, 1], transformer_depth_output=[1] * 6, num_heads=4)
    model = tiny.unet(tiny.ModelType.FLOW)
    millions = sum(weight.numel() for weight in model.model.parameters()) / 1e6
    return f"random UNet, {millions:.0f} M, 128 px", tiny.guider(model), torch.zeros(1, 4, 16, 16)


def _row(name: str, guider, latent, steps: int) -> str:
    seconds: dict[str | None, list[float]] = {level: [] for level in (None, *LEVELS)}
    kept = {}

    def measure(sampling) -> None:
        for level in LEVELS:  # what is found out once is found out, and what is kept
            kept[level] = _bytes_kept(sampling, guider.model_patcher.model, level) / 2**20
        for _ in range(REPEATS):  # interleaved, so that all meet the same load
            for level, times in seconds.items():
                times.append(_seconds(lambda level=level: pull(sampling, level)))

    inside(guider, _sigmas(guider.model_patcher, steps), latent, measure)
    ratio = {level: median(map(truediv, seconds[level], seconds[None])) for level in LEVELS}
    cells = [f"{ratio[level]:.2f} T F, {kept[level]:.1f} MB" for level in LEVELS]
    return f"| {name} | {steps} | {' | '.join(cells)} |"


def _bytes_kept(sampling, network, level: str) -> int:
    """Bytes of all tensors that wait for backward after one sampling, weights not counted."""
    import torch
    from counted import Counted

    from ComfyUI_DNO.dno.noise import Noise
    from ComfyUI_DNO.nodes.host.sampling.plan import Level

    with torch.enable_grad(), Counted([*network.parameters(), *network.buffers()]) as counted:
        sampling.levels.forced = Level[level]
        latent = sampling.render(Noise(sampling.noise))
        return counted.now - latent.nbytes


def _sigmas(model, steps: int):
    import comfy.samplers

    return comfy.samplers.KSampler(
        model, steps=steps, device="cpu", sampler="euler_ancestral", scheduler="simple"
    ).sigmas


def _seconds(action: Callable[[], None]) -> float:
    start = time.process_time()
    action()
    return time.process_time() - start


if __name__ == "__main__":
    HOME.mkdir(parents=True, exist_ok=True)
    main()

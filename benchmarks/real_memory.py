"""What an evaluation and a climb really take of a process's memory: see memory.py.

python benchmarks/real_memory.py NAME LEVEL    one evaluation of REAL: prints GB beside the weights
python benchmarks/real_memory.py climb         the climb of CLIMB, with ComfyUI's own attention
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import memory
from published import MODELS, Published

LIBC = "libc.so.6"
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
CLOSE = 0.15  # that a count may be off
SMALL_FLUX = MODELS["Flux.1-dev"].small(
    hidden_size=768, num_heads=6, depth=4, depth_single_blocks=8
)
REAL: dict[str, tuple[Published, int]] = {  # computed in fp32
    "SD1.5 256": (MODELS["SD1.5"], 256),
    "Wan2.1-1.3B 192": (MODELS["Wan2.1-1.3B"], 192),
    "Flux of 4 + 8 blocks, width 768, 512": (SMALL_FLUX, 512),
}
CLIMB, CLIMB_SIDE, TARGET = "SD1.5", 512, 1.0  # GB beyond plain sampling
CLIMB_TEXT = """\
A real climb on the CPU (SD1.5, {side} px, CFG, fp32, one step, one iteration, memory `least`,
ComfyUI's own attention there) takes {climbing:.2f} GB beside the weights, plain sampling
{plain:.2f}: {beyond:.2f} GB more, {compared} the {target:g} GB that were aimed at. The decoder's
backward, at another time, takes {decoder:.2f} GB in fp32, block by block.\
"""


def check_rows(name: str) -> list[str]:
    """Real runs in processes of their own, against the count of the same."""
    import torch
    from networks import count

    model, side = REAL[name]
    rows = []
    for level in ("RECORDED", "NESTED"):
        counted = count(model, model.latent(side, side), level, torch.float32, gpu=False).peak
        taken = _alone(name, level)
        if not 1 - CLOSE < counted / taken < 1 + CLOSE:
            sys.exit(f"{name}, {level.lower()}: {counted:.2f} GB counted, {taken:.2f} taken.")
        rows.append(memory.row(name, level.lower(), counted, taken, counted / taken))
    return rows


def climb_words() -> str:
    """What a real climb took beyond plain sampling, in a sentence."""
    import torch
    from decoders import decoder_count

    plain, climbing = _alone("climb")
    beyond = climbing - plain
    decoder = decoder_count("SD1.5, SDXL", CLIMB_SIDE, by_blocks=True, dtype=torch.float32)
    return CLIMB_TEXT.format(
        side=CLIMB_SIDE,
        climbing=climbing,
        plain=plain,
        beyond=beyond,
        compared="below" if beyond < TARGET else "above",
        target=TARGET,
        decoder=decoder,
    )


def _alone(*arguments: str):
    """What this script says in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), *arguments]
    said = subprocess.check_output(command, text=True, env={**os.environ, **AT_ONCE})
    return json.loads(said.splitlines()[-1])


def held() -> int:
    """Bytes of this process's own memory; pages of libraries come and go and are not counted."""
    words = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in words if line.startswith("RssAnon")) * 1024


class Peak(threading.Thread):
    """Watches what is held beside what was there, from now until `stop`, which gives the most."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        gc.collect()
        ctypes.CDLL(LIBC).malloc_trim(0)  # what was freed is handed back
        self._before = self._most = held()
        self._over = threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(0.002):
            self._most = max(self._most, held())

    def stop(self) -> float:
        """GB."""
        self._over.set()
        self.join()
        return (self._most - self._before) / 2**30


def evaluation(name: str, level: str) -> float:
    """GB of an evaluation and its backward."""
    import torch
    from networks import evaluate, prepared

    torch.set_num_threads(1)  # each thread would have memory of its own
    model, side = REAL[name]
    net, x, arguments, parts = prepared(
        model, model.latent(side, side), torch.float32, None, torch.randn
    )
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    evaluate(net, x, arguments, level, parts)  # what is made once is made
    peak = Peak()
    evaluate(net, x, arguments, level, parts)
    return peak.stop()


def climb() -> list[float]:
    """GB of a plain sampling of one step, and of one with its backward as `least` has it."""
    import comfy.samplers
    import torch
    from gpu import guider, patcher
    from live import inside, pull

    torch.set_num_threads(1)
    model, cpu = MODELS[CLIMB], torch.device("cpu")
    patched = patcher(model, torch.float32, None, cpu)
    sigmas = comfy.samplers.KSampler(patched, 1, cpu, "euler", "simple").sigmas
    peaks = []

    def measure(sampling) -> None:
        peak = Peak()
        pull(sampling, None)
        peaks.append(peak.stop())
        sampling.plan(lambda recomputed: None, lambda: None, "least", 0)
        peak = Peak()
        pull(sampling, "least")
        peaks.append(peak.stop())

    def small(sampling) -> None:
        pull(sampling, None)  # what is made once is made

    for side, run in ((64, small), (CLIMB_SIDE, measure)):
        latent = torch.zeros(1, *model.latent(side, side))
        inside(guider(model, patched), sigmas, latent, run, "euler")
    return peaks


if __name__ == "__main__":
    if sys.argv[1] == "climb":
        memory.start()
        print(climb())
    else:
        memory.start(memory.ATTENTION)
        print(evaluation(*sys.argv[1:]))

"""What a climb holds in memory, model by model, at published size and without a GPU.

    python run.py exec -- python benchmarks/memory.py

Tensors have no contents (`counted.py`), so any model fits: half an hour on two cores, 2 GB. Two
runs with real numbers are compared at the end, by the process's own memory (Linux only). Writes
memory.md beside this file.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from published import MODELS, Published  # noqa: E402

from tools import inside  # noqa: E402

ATTENTION = "--use-pytorch-cross-attention"  # as on a GPU
AT_ONCE = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back at once
RESERVE = 1.0  # GB: the driver's context, and what ComfyUI keeps free
TEXT = """\
What a climb holds beside the weights, in GB, counted by `memory.py` with a GPU's kernels; their own
workspace and an allocator's losses are not in it. 1024 x 1024 unless said; with CFG (two prompts)
where the model is used so; 16-bit computing. One evaluation of the network at a time:

- *whole*: the level `recorded`, which keeps this much for every step, or `call`, one at a time;
- *blocks*: each block keeps its inputs (*a step*: what waits for backward if all steps do so,
  4 T F become 3 T F), and one block at a time its activations;
- *least*: one prompt after the other, here with 8-bit weights, cast for each product: what streamed
  or packed weights add is in it.

| model | whole | blocks | a step | least | weights: 16-bit | 8-bit |
|---|---|---|---|---|---|---|
{networks}

Decoders with their backward, one picture, 16-bit:

| decoder | 1024: whole | blocks | 2048: whole | blocks |
|---|---|---|---|---|
{decoders}

Whether a climb fits: the larger of network and decoder (they are not pulled at the same time), the
weights that stay, and {reserve} GB for the driver and ComfyUI's reserve. *streamed*: weights lie in
ordinary memory and come layer by layer.

| target | network | decoder | weights | in all | of | |
|---|---|---|---|---|---|---|
{targets}

Real runs on the CPU, what the process took beside the weights, against the count (CPU kernels):

| run | level | counted | taken | counted / taken |
|---|---|---|---|---|
{check}
"""


@dataclass(frozen=True)
class Case:
    """A row of the table: a model at a size."""

    name: str
    height: int = 1024
    width: int = 1024
    frames: int = 1

    @property
    def words(self) -> str:
        film = f", {self.frames} frames" if self.frames > 1 else ""
        size = "" if self.height == self.width == 1024 else f" {self.width} x {self.height}"
        return f"{self.name}{size}{film}"

    @property
    def latent(self) -> tuple[int, ...]:
        return MODELS[self.name].latent(self.height, self.width, self.frames)


CASES = [
    Case("SD1.5", 512, 512),
    *map(Case, ("SDXL", "SD3.5-medium", "SD3.5-large", "Lumina2", "Z-Image", "Flux.1-dev")),
    *map(Case, ("Chroma", "Qwen-Image")),
    Case("Qwen-Image", 1328, 1328),
    Case("HunyuanVideo"),
    Case("Wan2.1-1.3B", 480, 832),
    Case("Wan2.1-1.3B", 480, 832, 81),
]


@dataclass(frozen=True)
class Target:
    """A climb that is to fit on a card of `card` GB; side: of a square as large as the picture."""

    words: str
    case: str
    decoder: str
    side: int
    card: int
    resident: str = ""  # "8-bit" where weights stay on the card


QWEN = "Wan 2.1, Qwen-Image"
TARGETS = [
    Target("SDXL, streamed", "SDXL", "SD1.5, SDXL", 1024, 8),
    Target("Flux.1 8-bit, streamed", "Flux.1-dev", "SD3, Flux", 1024, 12),
    Target("Flux.1 8-bit, resident", "Flux.1-dev", "SD3, Flux", 1024, 24, "8-bit"),
    Target("Qwen-Image 1328, streamed", "Qwen-Image 1328 x 1328", QWEN, 1328, 16),
    Target("Wan 1.3B, one frame, streamed", "Wan2.1-1.3B 832 x 480", QWEN, 632, 8),
]
SMALL_FLUX = MODELS["Flux.1-dev"].small(
    hidden_size=768, num_heads=6, depth=4, depth_single_blocks=8
)
REAL: dict[str, tuple[Published, int]] = {  # computed in fp32
    "SD1.5 256": (MODELS["SD1.5"], 256),
    "Flux of 4 + 8 blocks, width 768, 512": (SMALL_FLUX, 512),
}


def start() -> None:
    """ComfyUI and the pack inside this process, on the CPU, with a GPU's attention."""
    logging.disable(logging.CRITICAL)
    inside.start_comfyui(Path(tempfile.gettempdir()) / "dno_memory", ("--cpu", ATTENTION))
    inside.load_pack()
    sys.path.insert(0, str(HERE))


def network_row(case: Case) -> dict[str, float]:
    """What the table says of a model, GB."""
    import torch
    from networks import count

    model = MODELS[case.name]
    whole, blocks = (count(model, case.latent, level) for level in ("RECORDED", "KEPT"))
    cast = {"dtype": torch.float8_e4m3fn, "cast": getattr(torch, model.half)}
    least = count(model, case.latent, "SPLIT", **cast)
    return {
        "whole": whole.peak,
        "blocks": blocks.peak,
        "a step": blocks.kept,
        "least": least.peak,
        "16-bit": whole.weights,
        "8-bit": least.weights,
    }


def target_row(target: Target, network: dict[str, float], decoder: float) -> str:
    """Whether a climb fits, and if not, what of it does not."""
    weights = network.get(target.resident, 0.0)
    total = max(network["least"], decoder) + weights + RESERVE
    said = "fits" if total <= target.card else "the decoder in tiles, or a small one"
    return row(target.words, network["least"], decoder, weights, total, f"{target.card} GB", said)


def row(*cells: object) -> str:
    texts = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"| {' | '.join(texts)} |"


def decoder_row(name: str) -> str:
    from decoders import decoder_count

    return row(name, *(decoder_count(name, s, b) for s in (1024, 2048) for b in (False, True)))


def check_rows(name: str) -> list[str]:
    """A real run in a process of its own, against the count of the same."""
    import torch
    from networks import count

    model, side = REAL[name]
    rows = []
    for level in ("RECORDED", "NESTED"):
        counted = count(model, model.latent(side, side), level, torch.float32, gpu=False).peak
        command = [sys.executable, str(HERE / "real_memory.py"), name, level]
        said = subprocess.check_output(command, text=True, env={**os.environ, **AT_ONCE})
        taken = json.loads(said.splitlines()[-1])
        rows.append(row(name, level.lower(), counted, taken, counted / taken))
    return rows


def main() -> None:
    from decoders import DECODERS, decoder_count

    networks = {case.words: network_row(case) for case in CASES}
    decoded = {t: decoder_count(t.decoder, t.side, by_blocks=True) for t in TARGETS}
    text = TEXT.format(
        networks="\n".join(row(name, *sizes.values()) for name, sizes in networks.items()),
        decoders="\n".join(map(decoder_row, DECODERS)),
        targets="\n".join(target_row(t, networks[t.case], decoded[t]) for t in TARGETS),
        check="\n".join(line for name in REAL for line in check_rows(name)),
        reserve=f"{RESERVE:g}",
    )
    (HERE / "memory.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    start()
    main()

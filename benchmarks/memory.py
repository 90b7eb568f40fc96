"""What a climb holds in memory, model by model, at published size and without a GPU.

    python run.py exec -- python benchmarks/memory.py

Tensors have no contents (`counted.py`), so any model fits: an hour on two cores. Runs with real
numbers are compared at the end, by the process's own memory (Linux only, 8 GB): it fails where one
is further than 15% from the count. Writes memory.md beside this file.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]
from published import MODELS  # noqa: E402

from tools import inside  # noqa: E402

ATTENTION = "--use-pytorch-cross-attention"  # as on a GPU
LEVELS = ("RECORDED", "CALL", "KEPT", "NESTED", "SPLIT")
RESERVE = 1.0  # GB: the driver's context, and what ComfyUI keeps free
SMALL_CARD = 8  # GB
TEXT = """\
What a climb holds beside the weights, in GB, counted by `memory.py` with a GPU's kernels; their own
workspace and an allocator's losses are not in it. 1024 x 1024 unless said; with CFG (two prompts)
where the model is used so; 16-bit computing. The peak of one evaluation of the network and its
backward at each level of memory:

- *recorded*: it keeps this much for every step; *call*: computed again, one at a time;
- *blocks*: each block keeps its inputs (*a step*: what waits for backward if all steps do so,
  4 T F become 3 T F), and one block at a time its activations; *nested*: blocks in a recomputed
  call;
- *split*: the same, one prompt after the other;
- *least*: a run with memory `least`, here with 8-bit weights that are cast for each product: what
  streamed or packed weights add is in it. Its first evaluation measures, by blocks, all prompts.

*planned*: what ComfyUI is asked to keep free for the columns before it (a decoder that takes more
is planned for instead).

| model | recorded | call | planned | blocks | nested | planned | a step | split | least | planned \
| weights: 16-bit | 8-bit |
|---|---|---|---|---|---|---|---|---|---|---|---|---|
{networks}

Decoders with their backward, one picture, 16-bit. *tiles*: the largest that the pack takes where
{room:g} GB are free, in 85% of that; and how many:

| decoder | 1024: whole | blocks | 2048: whole | blocks | tiles | |
|---|---|---|---|---|---|---|
{decoders}

Whether a climb fits, decoded by blocks or, where they take more than 85% of what is free, in
tiles, as the pack does: the larger of network and decoder (they are not pulled at the same time),
the weights that stay, and {reserve:g} GB for the driver and ComfyUI's reserve. *network*: with
memory `least`, its first evaluation too. *streamed*: weights lie in ordinary memory and come layer
by layer.

| target | network | decoder | weights | in all | of | |
|---|---|---|---|---|---|---|
{targets}

Real runs on the CPU in fp32, what the process took beside the weights, against the count (CPU
kernels):

| run | level | counted | taken | counted / taken |
|---|---|---|---|---|
{check}

{climb}
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
    Case("SDXL"),
    Case("SDXL", 2048, 2048),
    *map(Case, ("SD3.5-medium", "SD3.5-large", "Lumina2", "Z-Image", "Flux.1-dev")),
    Case("Flux.1-dev", 2048, 2048),
    *map(Case, ("Chroma", "Qwen-Image")),
    Case("Qwen-Image", 1328, 1328),
    Case("HunyuanVideo"),
    Case("Wan2.1-1.3B", 480, 832),
    Case("Wan2.1-1.3B", 480, 832, 81),
]


def start(*flags: str) -> None:
    """ComfyUI and the pack inside this process, on the CPU."""
    logging.disable(logging.CRITICAL)
    inside.start_comfyui(Path(tempfile.gettempdir()) / "dno_memory", ("--cpu", *flags))
    inside.load_pack()
    sys.path.insert(0, str(HERE))


def network_row(case: Case) -> list[float]:
    """What the table says of a model, GB."""
    import torch
    from networks import count, planned

    model = MODELS[case.name]
    plan = planned(model, case.latent)
    recorded, call, blocks, nested, split = (count(model, case.latent, level) for level in LEVELS)
    cast = {"dtype": torch.float8_e4m3fn, "cast": getattr(torch, model.half)}
    least = count(model, case.latent, "least", **cast)
    return [
        *(recorded.peak, call.peak, plan["call"]),
        *(blocks.peak, nested.peak, plan["blocks"], blocks.kept),
        *(split.peak, least.peak, plan["least"]),
        *(recorded.weights, least.weights),
    ]


def row(*cells: object) -> str:
    texts = [f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells]
    return f"| {' | '.join(texts)} |"


def main() -> None:
    import fits
    import real_memory
    from decoders import DECODERS

    networks = {case.words: network_row(case) for case in CASES}
    checks = [line for name in real_memory.REAL for line in real_memory.check_rows(name)]
    text = TEXT.format(
        networks="\n".join(row(name, *sizes) for name, sizes in networks.items()),
        decoders="\n".join(map(fits.decoder_row, DECODERS)),
        targets="\n".join(fits.target_row(each, networks[each.case]) for each in fits.TARGETS),
        check="\n".join(checks),
        climb=real_memory.climb_words(),
        reserve=RESERVE,
        room=SMALL_CARD - RESERVE,
    )
    (HERE / "memory.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    start(ATTENTION)
    main()

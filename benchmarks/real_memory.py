"""What one evaluation and its backward really take of this process's memory: see memory.py.

python benchmarks/real_memory.py NAME LEVEL        prints GB beside the weights (Linux)
"""

from __future__ import annotations

import ctypes
import gc
import sys
from pathlib import Path

import memory

LIBC = "libc.so.6"


def resident() -> int:
    """Bytes of ordinary memory that this process holds, freed ones handed back first."""
    gc.collect()
    ctypes.CDLL(LIBC).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def peak() -> int:
    words = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in words if line.startswith("VmHWM")) * 1024


def main(name: str, level: str) -> float:
    import torch
    from networks import GB, evaluate, prepared

    torch.set_num_threads(1)  # each thread would have memory of its own
    model, side = memory.REAL[name]
    net, x, arguments, parts = prepared(
        model, model.latent(side, side), torch.float32, None, torch.randn
    )
    with torch.no_grad():
        for weight in net.parameters():
            weight.normal_(std=weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.1)
    evaluate(net, x, arguments, level, parts)  # what is made once is made
    before = resident()
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    evaluate(net, x, arguments, level, parts)
    return (peak() - before) / GB


if __name__ == "__main__":
    memory.start()
    print(main(*sys.argv[1:]))

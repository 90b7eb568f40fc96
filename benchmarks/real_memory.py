"""What one evaluation and its backward really take of this process's memory: see memory.py.

python benchmarks/real_memory.py NAME LEVEL        prints GB beside the weights (Linux)
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
from pathlib import Path

import memory

LIBC = "libc.so.6"


def held() -> int:
    """Bytes of this process's own memory; pages of libraries come and go and are not counted."""
    words = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in words if line.startswith("RssAnon")) * 1024


class Peak(threading.Thread):
    """Watches what is held until `stop`, which gives the most of it."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._most, self._over = 0, threading.Event()

    def run(self) -> None:
        while not self._over.wait(0.002):
            self._most = max(self._most, held())

    def stop(self) -> int:
        self._over.set()
        self.join()
        return self._most


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
    gc.collect()
    ctypes.CDLL(LIBC).malloc_trim(0)  # what was freed is handed back
    before, peak = held(), Peak()
    peak.start()
    evaluate(net, x, arguments, level, parts)
    return (peak.stop() - before) / GB


if __name__ == "__main__":
    memory.start()
    print(main(*sys.argv[1:]))

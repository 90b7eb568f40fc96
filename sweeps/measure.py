"""What a row took: the most memory, of the device that it ran on."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path


def has_gpu() -> bool:
    """Whether torch, where it is in use, has one."""
    if "torch" not in sys.modules:
        return False
    import torch

    return torch.cuda.is_available()


def reset_peak() -> None:
    """Count the peak from here on, where that can be."""
    if has_gpu():
        import torch

        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    """Bytes at the peak since then: of the GPU's memory, or of this process's."""
    if has_gpu():
        import torch

        return torch.cuda.max_memory_allocated()
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale

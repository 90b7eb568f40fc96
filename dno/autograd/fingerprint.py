"""Whether a call gave the same again, told from a few numbers of its outputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

# What rounding may change of a network's outputs, relative to their root mean square.
ROUNDING = {torch.float64: 1e-9, torch.float32: 1e-3, torch.float16: 5e-2, torch.bfloat16: 2e-1}
_SAMPLES = 64


def rounding(dtype: torch.dtype) -> float:
    """The bound for a network that computes in `dtype`; in eight bits as in bfloat16."""
    return ROUNDING.get(dtype, ROUNDING[torch.bfloat16])


def fingerprint(outputs: Sequence[Tensor | None]) -> list[Tensor | None]:
    """64 numbers of each floating output and its root mean square, left on its device."""
    return [None if output is None or not _counts(output) else _of(output) for output in outputs]


@torch.no_grad()
def gaps(
    outputs: Sequence[Tensor | None],
    first: Sequence[Tensor | None],
    precision: torch.dtype | None = None,
) -> list[tuple[Tensor, float]]:
    """The largest difference to the outputs of a fingerprint, relative to their size, if any can be
    told, and what rounding explains of it in `precision`, by default the outputs' own.
    """
    differences = [
        (_of(output) - before).abs().max() / before[-1].clamp(min=1e-30)
        for output, before in zip(outputs, first, strict=True)
        if before is not None and output is not None and _counts(output)
    ]
    if not differences:
        return []
    dtype = precision or next(output.dtype for output in outputs if output is not None)
    largest = torch.stack([each.to(differences[0]) for each in differences]).max()
    return [(largest, rounding(dtype))]


def _counts(output: Tensor) -> bool:
    return output.dtype in ROUNDING and output.numel() > 0


@torch.no_grad()
def _of(output: Tensor) -> Tensor:
    exact = output.dtype if output.dtype == torch.float64 else torch.float32
    size, output = output.numel(), output.detach()
    indices = torch.arange(0, size, max(1, size // _SAMPLES), device=output.device)
    norm = torch.linalg.vector_norm(output, dtype=exact) / size**0.5
    return torch.cat([output.take(indices).to(exact), norm.reshape(1)])

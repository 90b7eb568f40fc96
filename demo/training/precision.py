"""Half precision where the processor computes in it, and single where it would only imitate it."""

import torch

NATIVE = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
FAST = torch.bfloat16 if NATIVE else torch.float32
"""Type of the products in training. A CPU without bfloat16 is twenty times slower in it."""


def autocast() -> torch.autocast:
    """Products in ``FAST``; everything else stays in single precision."""
    return torch.autocast("cpu", dtype=torch.bfloat16, enabled=NATIVE)

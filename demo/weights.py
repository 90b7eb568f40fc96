"""The stored weights: what training leaves behind, half precision or 8-bit rows."""

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

WEIGHTS = Path(__file__).with_name("weights.safetensors")

_BYTES, _SCALE = ".int8", ".scale"
_SMALLEST = 8192  # matrices with fewer numbers stay in half precision


@dataclass(frozen=True)
class Weights:
    """The state dicts of the three networks, and the CLIP tokens that have a vector."""

    denoiser: dict[str, Tensor]
    encoder: dict[str, Tensor]
    decoder: dict[str, Tensor]
    identifiers: Tensor
    """CLIP token ``identifiers[i]`` has row ``i + 1`` of the token table."""


def read_weights(path: str | Path = WEIGHTS) -> Weights:
    """Read stored weights, in single precision."""
    stored = load_file(path)
    whole: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        if name.endswith(_BYTES):
            plain = name.removesuffix(_BYTES)
            product = tensor.float() * stored[plain + _SCALE].float()
            whole[plain] = product.half().float()  # as the checkpoint holds it
        elif not name.endswith(_SCALE):
            whole[name] = tensor if tensor.dtype == torch.int32 else tensor.float()
    return Weights(
        denoiser=_part(whole, "denoiser."),
        encoder=_part(whole, "encoder."),
        decoder=_part(whole, "decoder."),
        identifiers=whole["identifiers"],
    )


def write_weights(weights: Weights, path: str | Path, eight_bits: bool) -> None:
    """Store weights in half precision; with ``eight_bits``, the denoiser's big matrices in int8."""
    stored = {"identifiers": weights.identifiers}
    for part in ("denoiser", "encoder", "decoder"):
        for name, tensor in getattr(weights, part).items():
            key = f"{part}.{name}"
            matrix = tensor.ndim == 2 and tensor.numel() > _SMALLEST and "table" not in name
            if eight_bits and matrix:
                scale = (tensor.abs().amax(1, keepdim=True) / 127).clamp(min=1e-7).half()
                stored[key + _BYTES] = (tensor / scale.float()).round().clamp(-127, 127).char()
                stored[key + _SCALE] = scale
            else:
                stored[key] = tensor.half().contiguous()
    save_file(stored, str(path))


def _part(whole: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in whole.items() if k.startswith(prefix)}

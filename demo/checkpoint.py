"""Assemble the stored weights into an ordinary ComfyUI checkpoint: MODEL, CLIP and VAE.

    python demo/checkpoint.py ComfyUI/models/checkpoints/dno_demo.safetensors

The file is an SD3 checkpoint like any other, and CheckpointLoaderSimple loads it. It is mostly
zeros (a CLIP-L has 123 million parameters, of which we need a handful), and those are holes in the
file: 272 MB apparent, 18 MB on disk. The same weights give the same bytes.
"""

import argparse
import hashlib
import json
import os
import struct
import sys
from pathlib import Path

if not __package__:  # run by its path, not as a module
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __package__ = "demo"

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from . import clip, mmdit, vae
from .weights import WEIGHTS, read_weights

_VERSION = "1"
"""Raise it when the assembly changes while the weights do not."""
_PAGE = 4096
_TYPES = {torch.float16: "F16", torch.float32: "F32"}


def assemble(output: str | Path, weights: str | Path = WEIGHTS) -> Path:
    """Write the checkpoint to ``output`` unless that very checkpoint is there; returns its path."""
    output = Path(output)
    digest = hashlib.sha256(_VERSION.encode() + Path(weights).read_bytes()).hexdigest()
    if _digest_of(output) != digest:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            _write_sparsely(state_dict(weights), {"format": "pt", "dno_demo": digest}, temporary)
            os.replace(temporary, output)
        finally:
            temporary.unlink(missing_ok=True)
    return output


def state_dict(weights: str | Path = WEIGHTS) -> dict[str, Tensor]:
    """Every tensor of the checkpoint under the name that ComfyUI looks for."""
    stored = read_weights(weights)
    state = mmdit.host_state_dict(stored.denoiser)
    state |= vae.host_state_dict(stored.encoder, stored.decoder)
    state |= clip.host_state_dict(stored.denoiser["text.table.weight"], stored.identifiers)
    return {name: weight if weight.ndim == 0 else weight.half() for name, weight in state.items()}


def _digest_of(path: Path) -> str | None:
    """Which weights a checkpoint was made from, None where there is no whole one of ours."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as checkpoint:
            return (checkpoint.metadata() or {}).get("dno_demo")
    except SafetensorError:  # cut off, or something else altogether
        return None


def _write_sparsely(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """The safetensors format, with pages of zeros as holes."""
    header: dict[str, object] = {"__metadata__": metadata}
    end = 0
    for name, weight in state.items():
        start, end = end, end + weight.numel() * weight.element_size()
        kind, shape = _TYPES[weight.dtype], list(weight.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for weight in state.values():
            if weight.any():
                _write_pages(file, weight.contiguous().numpy().tobytes())
            else:
                file.seek(weight.numel() * weight.element_size(), os.SEEK_CUR)
        file.truncate(8 + len(text) + end)


def _write_pages(file, data: bytes) -> None:
    """Write ``data``, skipping whole pages of zeros."""
    zeros = bytes(_PAGE)
    start = 0
    while start < len(data):
        size = _PAGE - file.tell() % _PAGE
        piece = data[start : start + size]
        if piece == zeros[: len(piece)]:
            file.seek(len(piece), os.SEEK_CUR)
        else:
            file.write(piece)
        start += size


def main() -> None:
    """Command line: the path to write."""
    parser = argparse.ArgumentParser(description="Assemble the demo checkpoint.")
    parser.add_argument("output", type=Path, help="e.g. models/checkpoints/dno_demo.safetensors")
    print(assemble(parser.parse_args().output))


if __name__ == "__main__":
    main()

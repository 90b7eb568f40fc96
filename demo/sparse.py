"""Safetensors files that are mostly zeros, written with holes in place of pages of zeros.

A file carries the digest of what it was made from, so that it is written only when that changes.
"""

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

_PAGE = 4096
_TYPES = {torch.float16: "F16", torch.float32: "F32"}
_DIGEST = "dno_demo"


def digest(version: str, weights: str | Path) -> str:
    """Of the stored weights, and of how they are put together."""
    return hashlib.sha256(version.encode() + Path(weights).read_bytes()).hexdigest()


def write(output: Path, digest: str, state: Callable[[], dict[str, Tensor]]) -> Path:
    """Write ``state()`` to ``output``, whole or not at all, unless that very file is there."""
    if _digest_of(output) != digest:
        output.parent.mkdir(parents=True, exist_ok=True)
        temporary = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            _write(state(), {"format": "pt", _DIGEST: digest}, temporary)
            os.replace(temporary, output)
        finally:
            temporary.unlink(missing_ok=True)
    return output


def _digest_of(path: Path) -> str | None:
    """What a file was made from, None where there is no whole one of ours."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, "pt") as found:
            return (found.metadata() or {}).get(_DIGEST)
    except SafetensorError:  # cut off, or something else altogether
        return None


def _write(state: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
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

"""Assemble the stored weights into an ordinary ComfyUI checkpoint: MODEL, CLIP and VAE.

    python demo/checkpoint.py ComfyUI/models/checkpoints/dno_demo.safetensors

The file is an SD3 checkpoint like any other, and CheckpointLoaderSimple loads it. It is mostly
zeros (a CLIP-L has 123 million parameters, of which we need a handful), and those are holes in the
file: 272 MB apparent, 18 MB on disk. The same weights give the same bytes.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run by its path, not as a module
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __package__ = "demo"

from torch import Tensor

from . import clip, mmdit, sparse, vae
from .weights import WEIGHTS, read_weights

_VERSION = "1"
"""Raise it when the assembly changes while the weights do not."""


def assemble(output: str | Path, weights: str | Path = WEIGHTS) -> Path:
    """Write the checkpoint to ``output`` unless that very checkpoint is there; returns its path."""
    digest = sparse.digest(_VERSION, weights)
    return sparse.write(Path(output), digest, lambda: state_dict(weights))


def state_dict(weights: str | Path = WEIGHTS) -> dict[str, Tensor]:
    """Every tensor of the checkpoint under the name that ComfyUI looks for."""
    stored = read_weights(weights)
    state = mmdit.host_state_dict(stored.denoiser)
    state |= vae.host_state_dict(stored.encoder, stored.decoder)
    state |= clip.host_state_dict(stored.denoiser["text.table.weight"], stored.identifiers)
    return {name: weight if weight.ndim == 0 else weight.half() for name, weight in state.items()}


def main() -> None:
    """Command line: the path to write."""
    parser = argparse.ArgumentParser(description="Assemble the demo checkpoint.")
    parser.add_argument("output", type=Path, help="e.g. models/checkpoints/dno_demo.safetensors")
    print(assemble(parser.parse_args().output))


if __name__ == "__main__":
    main()

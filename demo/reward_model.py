"""The learned reward of demo and tests: a small CLIP, trained with the demo checkpoint.

    python demo/reward_model.py ComfyUI/models/reward_models/dno_demo_clip.safetensors

It is an ordinary CLIP in Hugging Face's layout, with OpenAI's vocabulary and tokenizer. Only the
vectors of the words that the demo knows are stored; all others are zero, and holes in the file.
"""

import argparse
import sys
from pathlib import Path

if not __package__:  # run by its path, not as a module
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    __package__ = "demo"

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import CLIPConfig, CLIPModel

from . import sparse
from .clip import BEGIN, END, LENGTH, POSITIONS

WEIGHTS = Path(__file__).with_name("reward_model.safetensors")
SIDE, PATCH = 64, 8
"""Pixels along a side of what the vision tower sees, and of one patch."""
WIDTH, VISION_LAYERS, TEXT_LAYERS = 128, 4, 2

_VOCABULARY = END + 1
_HEAD_WIDTH = 64
_VERSION = "1"
"""Raise it when the assembly changes while the weights do not."""
_WORDS = "text_model.embeddings.token_embedding.weight"
_PLACES = "text_model.embeddings.position_embedding.weight"
_IDENTIFIERS = "identifiers"


def configuration(words: int = _VOCABULARY, length: int = LENGTH) -> CLIPConfig:
    """What transformers needs to know; the last two words begin and end a prompt."""
    tower = {
        "hidden_size": WIDTH,
        "intermediate_size": 4 * WIDTH,
        "num_attention_heads": WIDTH // _HEAD_WIDTH,
        "hidden_act": "quick_gelu",
    }
    text = {
        "num_hidden_layers": TEXT_LAYERS,
        "vocab_size": words,
        "max_position_embeddings": length,
        "bos_token_id": words - 2,
        "eos_token_id": words - 1,
    }
    vision = {"num_hidden_layers": VISION_LAYERS, "image_size": SIDE, "patch_size": PATCH}
    return CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=WIDTH)


def compact(known: int) -> CLIPModel:
    """The network as it is trained: row 0 for unknown words, the known ones, begin and end."""
    network = CLIPModel(configuration(known + 3, POSITIONS))
    table = network.text_model.embeddings.token_embedding
    table.padding_idx = 0  # stays zero
    with torch.no_grad():
        table.weight[0] = 0
    return network


def store(network: CLIPModel, identifiers: Tensor, path: str | Path = WEIGHTS) -> None:
    """Write a compact network in half precision; ``identifiers`` are its words' tokens."""
    state = {name: weight.half().contiguous() for name, weight in network.state_dict().items()}
    save_file(state | {_IDENTIFIERS: identifiers.int()}, str(path))


def stored(path: str | Path = WEIGHTS) -> tuple[CLIPModel, Tensor]:
    """The compact network and its words' tokens."""
    state = load_file(path)
    identifiers = state.pop(_IDENTIFIERS)
    network = compact(len(identifiers))
    network.load_state_dict(state)
    return network.eval().requires_grad_(False), identifiers


def state_dict(path: str | Path = WEIGHTS) -> dict[str, Tensor]:
    """Every tensor of the whole CLIP, in half precision."""
    state = load_file(path)
    identifiers, rows = state.pop(_IDENTIFIERS).long(), state[_WORDS]
    table = torch.zeros(_VOCABULARY, WIDTH, dtype=rows.dtype)
    table[identifiers] = rows[1:-2]
    table[[BEGIN, END]] = rows[-2:]
    last = state[_PLACES][-1:].expand(LENGTH - POSITIONS, -1)
    return state | {_WORDS: table, _PLACES: torch.cat([state[_PLACES], last])}


def assemble(output: str | Path, weights: str | Path = WEIGHTS) -> Path:
    """Write the CLIP to ``output`` unless that very file is there; returns its path."""
    digest = sparse.digest(_VERSION, weights)
    return sparse.write(Path(output), digest, lambda: state_dict(weights))


def main() -> None:
    """Command line: the path to write."""
    parser = argparse.ArgumentParser(description="Assemble the demo's CLIP.")
    parser.add_argument("output", type=Path, help="models/reward_models/dno_demo_clip.safetensors")
    print(assemble(parser.parse_args().output))


if __name__ == "__main__":
    main()

"""The tokenizer of a reward model: its folder's own, or the same one that ComfyUI ships."""

from __future__ import annotations

from pathlib import Path

import comfy.utils
from torch import nn
from transformers import (
    AutoTokenizer,
    BertTokenizerFast,
    CLIPTokenizer,
    Qwen2Tokenizer,
    T5TokenizerFast,
)

_OWN = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_SHIPPED = {
    "clip": (CLIPTokenizer, "sd1_tokenizer"),
    "t5": (T5TokenizerFast, "text_encoders/t5_tokenizer"),
    "qwen2": (Qwen2Tokenizer, "text_encoders/qwen25_tokenizer"),
}
_ALWAYS = ("t5", "qwen2")  # reading a folder's own may need packages that ComfyUI lacks
_BERT = "vocab.txt"


def tokenizer_of(network: nn.Module, path: Path):
    """For weights in `path`; None for a network that reads no text. Raises FileNotFoundError."""
    name = getattr(network, "tokenizer_name", None)
    if name is None:
        return None
    if name == "bert":
        return _bert(network, path)
    own = path.is_dir() and any((path / file).is_file() for file in _OWN)
    if own and name not in _ALWAYS:
        return AutoTokenizer.from_pretrained(str(path), local_files_only=True)
    if name in _SHIPPED:
        kind, folder = _SHIPPED[name]
        return kind.from_pretrained(
            str(Path(comfy.utils.__file__).parent / folder), local_files_only=True
        )
    if name == "siglip":
        return None  # pictures alone can be compared without one; for a text it says so
    raise FileNotFoundError(
        f"{network.title} needs its tokenizer: load it as the folder with all files of its page."
    )


def _bert(network: nn.Module, path: Path) -> BertTokenizerFast:
    shared = path.parent / "bert-base-uncased" / _BERT
    for place in (path / _BERT, path.with_suffix(f".{_BERT}"), shared):
        if place.is_file():
            return BertTokenizerFast(vocab_file=str(place), do_lower_case=True)
    raise FileNotFoundError(
        f"{network.title} reads prompts with BERT's words: get {_BERT} from "
        f"huggingface.co/google-bert/bert-base-uncased and put it at {shared}."
    )

"""The tokenizer of a reward model: its folder's own, or the same one that ComfyUI ships."""

from __future__ import annotations

import inspect
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import comfy.utils
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import BertProcessing
from torch import nn
from transformers import (
    AutoTokenizer,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    T5TokenizerFast,
)

from ....rewards.models.files import SUFFIXES
from ....rewards.models.foreign import decoded, foreign, marked
from .reward_folders import folders

_OWN = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_SHIPPED = {
    "clip": (CLIPTokenizer, "sd1_tokenizer"),
    "t5": (T5TokenizerFast, "text_encoders/t5_tokenizer"),
    "qwen2": (Qwen2Tokenizer, "text_encoders/qwen25_tokenizer"),
}
_ALWAYS = ("t5", "qwen2")  # reading a folder's own may need packages that ComfyUI lacks
_BERT = "vocab.txt"
_SPECIAL = {f"{name.lower()}_token": f"[{name}]" for name in ("PAD", "UNK", "CLS", "SEP", "MASK")}


def tokenizer_of(network: nn.Module, path: Path):
    """For weights in `path`; None for a network that reads no text. Raises FileNotFoundError."""
    name = getattr(network, "tokenizer_name", None)
    if name is None:
        return None
    if name == "bert":
        return _bert(network, path)
    own = path.is_dir() and any((path / file).is_file() for file in _OWN)
    if name == "siglip":
        return _siglip(path) if own else None
    if own and name not in _ALWAYS:
        return _own(path)
    if name in _SHIPPED:
        kind, folder = _SHIPPED[name]
        return kind.from_pretrained(
            str(Path(inspect.getfile(comfy.utils)).parent / folder), local_files_only=True
        )
    raise FileNotFoundError(
        f"{network.title} needs its tokenizer: load it as the folder with all files of its page."
    )


def _own(folder: Path):
    """The folder's tokenizer; code that it may bring is never run. Raises ValueError."""
    try:
        with _without_marks(folder) as readable:
            return AutoTokenizer.from_pretrained(
                str(readable), local_files_only=True, trust_remote_code=False
            )
    except ImportError:
        raise
    except Exception as error:  # of damaged files; the library has no class of its own for them
        for file in [*_texts(folder), *folder.glob("*.model")]:
            if said := foreign(file, text=True):
                raise ValueError(f"{file.name} in {folder.name} {said}.") from error
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(
            f"The tokenizer in {folder.name} cannot be read ({reason}): download its files again."
        ) from error


@contextmanager
def _without_marks(folder: Path) -> Iterator[Path]:
    """The folder, or a copy of it in plain UTF-8 where editors have left byte order marks."""
    texts = {file: marked(file.read_bytes()) for file in _texts(folder)}
    if not any(texts.values()):
        yield folder
        return
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.iterdir():
            if file in texts:
                words = decoded(file.read_bytes())
                Path(copy, file.name).write_text(words, encoding="utf-8")
            elif file.is_file() and file.suffix.lower() not in SUFFIXES:
                shutil.copy(file, copy)
        yield Path(copy)


def _texts(folder: Path) -> list[Path]:
    return [p for p in folder.iterdir() if p.suffix in (".json", ".txt", ".jinja") and p.is_file()]


def _siglip(folder: Path):
    """Or None, without which it compares pictures alone and says what a text needs."""
    try:
        return _own(folder)
    except ImportError:  # protobuf, which ComfyUI does not bring
        return None


def _bert(network: nn.Module, path: Path) -> PreTrainedTokenizerFast:
    shared = path.parent / "bert-base-uncased" / _BERT
    elsewhere = (root / "bert-base-uncased" / _BERT for root in folders())
    for file in (path / _BERT, path.with_suffix(f".{_BERT}"), shared, *elsewhere):
        if file.is_file():
            return bert_tokenizer(file, network.vocabulary)
    raise FileNotFoundError(
        f"{network.title} reads prompts with BERT's words: get {_BERT} from "
        f"huggingface.co/google-bert/bert-base-uncased and put it at {shared}."
    )


def bert_tokenizer(file: Path, size: int) -> PreTrainedTokenizerFast:
    """Of bert-base-uncased, from its words; transformers 4 and 5 take them in different ways.

    Raises ValueError if the file has not `size` words, or has no special ones.
    """
    if said := foreign(file, text=True):
        raise ValueError(f"{file.name} in {file.parent.name} {said}.")
    try:
        lines = decoded(file.read_bytes()).replace("\r\n", "\n").rstrip("\n").split("\n")
    except ValueError:
        lines = []
    words = {word: number for number, word in enumerate(lines)}
    if len(lines) != size or not {*_SPECIAL.values()} <= words.keys():
        raise ValueError(
            f"{file.name} does not hold the {size} words of BERT: get it from "
            "huggingface.co/google-bert/bert-base-uncased."
        )
    tokenizer = Tokenizer(WordPiece(words, unk_token=_SPECIAL["unk_token"]))
    tokenizer.normalizer, tokenizer.pre_tokenizer = (
        BertNormalizer(lowercase=True),
        BertPreTokenizer(),
    )
    ends = ((_SPECIAL[end], words[_SPECIAL[end]]) for end in ("sep_token", "cls_token"))
    tokenizer.post_processor = BertProcessing(*ends)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)

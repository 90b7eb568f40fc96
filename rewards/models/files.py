"""Weights on disk: safetensors, pickles without code, and folders of Hugging Face."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from .disk import missing_link, unreadable
from .foreign import foreign

PICKLES = (".pt", ".pth", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
_WHOLE = (
    *("model.safetensors", "pytorch_model.bin"),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin"),
)
_SHARDED = tuple(f"{name}.index.json" for name in _WHOLE)
_REST = "state_dict.pt"  # of a model whose parts have folders: what is in none of them
FOLDER_MARKS = ("config.json", _REST)  # one of them is in every folder that is_folder knows
_AS_SAFETENSORS = {"trainer.models.clip_model": "RE-N-Y/mpsv1"}  # of published code: where else
_CODE = ("nsupported global", "nsupported GLOBAL", "Unsupported class", "TorchScript", "Can only")
_UNREADABLE = (
    *(pickle.UnpicklingError, RuntimeError, EOFError, OSError, zipfile.BadZipFile),
    *(ValueError, KeyError, IndexError, TypeError, AttributeError),
)
_NESTED = ("state_dict", "model_state_dict", "model", "module")


@dataclass(frozen=True)
class Stored:
    """What a file or folder holds; `config` is empty where there is no config.json."""

    path: Path
    tensors: dict[str, Tensor]
    config: Mapping = field(default_factory=dict)


def is_folder(path: Path) -> bool:
    """Whether this is a folder of Hugging Face with weights, or one with such folders (LRM)."""
    return _is_one(path) or ((path / _REST).is_file() and any(map(_is_one, path.iterdir())))


def _is_one(path: Path) -> bool:
    return (path / "config.json").is_file() and any(
        (path / name).is_file() for name in _WHOLE + _SHARDED
    )


def read(path: Path) -> Stored:
    """All tensors of a file, or of a folder's files; nothing of it is run.

    Raises FileNotFoundError or ValueError, one sentence that names the file.
    """
    try:
        return _read(path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ValueError(unreadable(Path(error.filename or path), error)) from None


def _read(path: Path) -> Stored:
    if not path.exists():
        if lost := missing_link(path):
            raise FileNotFoundError(f"{lost}: mount its drive, or put the file itself there.")
        raise FileNotFoundError(f"{path.name} is not there any more: press R to read the folder.")
    if not path.is_dir():
        return Stored(path, _tensors(path, path.name))
    if not is_folder(path):
        raise ValueError(_no_folder(path))
    if not _is_one(path):
        return _read_parts(path)
    tensors: dict[str, Tensor] = {}
    for part in _parts(path):
        tensors |= _tensors(part, f"{part.name} in {path.name}")
    return Stored(path, tensors, _json(path / "config.json"))


def _no_folder(path: Path) -> str:
    """What a folder lacks to be one of Hugging Face, in a sentence."""
    for entry in sorted(path.iterdir()):
        if lost := missing_link(entry):
            return f"{lost}: copy the file itself into {path.name}, not the link."
    inside = [entry.name for entry in path.iterdir() if entry.suffix.lower() in SUFFIXES]
    if path.suffix.lower() in SUFFIXES and len(inside) == 1:
        return f"{path.name} is a folder, no file: choose {inside[0]} in it."
    return f"{path.name} is a folder without a config.json and weights: download all its files."


def _read_parts(path: Path) -> Stored:
    """Names and configs are prefixed with the parts' folders."""
    parts = {folder.name: read(folder) for folder in path.iterdir() if _is_one(folder)}
    tensors = {f"{name}.{n}": t for name, part in parts.items() for n, t in part.tensors.items()}
    tensors |= dict(_flat(_unpickle(path / _REST, f"{_REST} in {path.name}")))
    return Stored(path, tensors, {name: part.config for name, part in parts.items()})


def _flat(content: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    if isinstance(content, Mapping):
        for name, item in content.items():
            yield from _flat(item, f"{prefix}.{name}".lstrip("."))
    elif isinstance(content, Tensor | float):
        yield prefix, torch.as_tensor(content)


def _parts(folder: Path) -> list[Path]:
    for name in _WHOLE:
        if (folder / name).is_file():
            return [folder / name]
    index = next(folder / name for name in _SHARDED if (folder / name).is_file())
    named = _json(index).get("weight_map")
    names = sorted(map(str, set(named.values()))) if isinstance(named, Mapping) else []
    if any(Path(name).name != name or "\\" in name for name in names):
        raise ValueError(f"{index.name} of {folder.name} names files elsewhere, and is not read.")
    lacking = [name for name in names if not (folder / name).is_file()]
    if lacking or not names:
        what = lacking[0] if lacking else "a part of the weights"
        if lost := missing_link(folder / what):
            raise ValueError(f"{lost}: copy the file itself into {folder.name}, not the link.")
        raise ValueError(f"{folder.name} lacks {what}: download it into that folder.")
    return [folder / name for name in names]


def _json(path: Path) -> dict:
    try:
        content = json.loads(path.read_bytes())  # in UTF-8, 16 or 32, with or without its mark
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        said = foreign(path, text=True) or "is damaged: download it again"
        raise ValueError(f"{path.name} in {path.parent.name} {said}.")
    return content


def _tensors(path: Path, title: str) -> dict[str, Tensor]:
    """Mapped from the disk: a tensor's bytes are read when they are used."""
    if not path.is_file():
        raise ValueError(f"{title} is no file: put the published one there.")
    path.open("rb").close()  # for the system's own reason where it may not be read
    if path.suffix.lower() == ".safetensors":
        try:
            return load_file(path)
        except (SafetensorError, OSError) as error:
            said = f"is damaged or no safetensors file ({_first(error)}): download it again"
            raise ValueError(f"{title} {foreign(path) or said}.") from None
    content = _unpickle(path, title)
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = content if isinstance(content, Mapping) else {}
    tensors = {str(name): t for name, t in tensors.items() if isinstance(t, Tensor)}
    if not tensors:
        raise ValueError(f"{title} holds no weights by name: get the published file.")
    return tensors


def _unpickle(path: Path, title: str) -> object:
    """Numbers and containers alone: a pickle that names any code is refused before it is run."""
    try:
        with warnings.catch_warnings():  # a TorchScript archive is refused, not recommended
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(
                path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
            )
    except _UNREADABLE as error:
        if any(sign in str(error) for sign in _CODE):
            where = [f" from {w}" for code, w in _AS_SAFETENSORS.items() if code in str(error)]
            raise ValueError(
                f"{title} holds more than weights (pickled code), and was not run: get it as "
                f"safetensors{''.join(where)}."
            ) from None
        said = f"is damaged or no file of weights ({_first(error)}): download it again"
        raise ValueError(f"{title} {foreign(path) or said}.") from None


def _first(error: Exception) -> str:
    """The first line of torch's reason, without its advice to run what a pickle holds."""
    if isinstance(error, pickle.UnpicklingError):
        return "no pickle of weights"
    return (str(error).splitlines() or [type(error).__name__])[0]

"""Reward models as ComfyUI's own: found in its model folders, moved and freed by its management.

A network that ComfyUI manages carries its ModelPatcher as `patcher`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import comfy.model_management as management
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ...rewards.models import build
from ...rewards.models.files import SUFFIXES, is_folder, read
from .tokenizers import tokenizer_of

FOLDER = "reward_models"
PRECISIONS = {
    "automatic": None,
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
}


class WholePatcher(ModelPatcher):
    """Moves a network as a whole: its layers are not ComfyUI's, which can stream theirs.

    Nodes run in inference mode, and what is moved in it cannot be differentiated through.
    """

    def load(self, *arguments, **keywords):
        with torch.inference_mode(False), torch.no_grad():
            return super().load(*arguments[:1], **{**keywords, "full_load": True})

    def unpatch_model(self, *arguments, **keywords):
        with torch.inference_mode(False), torch.no_grad():
            return super().unpatch_model(*arguments, **keywords)

    def partially_unload(self, *arguments, **keywords) -> int:
        return 0


def folders() -> list[Path]:
    """Where reward models are: models/reward_models and what extra_model_paths.yaml adds."""
    own = str(Path(folder_paths.models_dir) / FOLDER)
    folder_paths.add_model_folder_path(FOLDER, own)
    return [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]


def names() -> list[str]:
    """Files with weights, and folders of Hugging Face, in the folders and below."""
    found: set[str] = set()
    for root in folders():
        for path in root.rglob("*") if root.is_dir() else ():
            inside = any(is_folder(parent) for parent in _between(path, root))
            file = path.is_file() and path.suffix in SUFFIXES
            if not inside and (file or is_folder(path)):
                found.add(path.relative_to(root).as_posix())
    return sorted(found)


def _between(path: Path, root: Path) -> Iterator[Path]:
    """The folders above `path`, up to `root` and without it."""
    for parent in path.parents:
        if parent == root:
            return
        yield parent


def find(name: str) -> Path:
    """The file or folder of that name. Raises FileNotFoundError."""
    for root in folders():
        path = (root / name).resolve()
        if path.is_relative_to(root.resolve()) and path.exists():
            return path
    raise FileNotFoundError(f"{name} is not in {folders()[0]}.")


def load(path: Path, precision: torch.dtype | None = None) -> nn.Module:
    """The network of a file or folder, under ComfyUI's management; in half precision on a GPU."""
    with torch.inference_mode(False), torch.no_grad():
        stored = read(path)
        network = build(stored)
        network.tokenizer = tokenizer_of(network, path)
        device = management.get_torch_device()
        network.to(precision or _precision(network, device))
    network.patcher = WholePatcher(
        network, load_device=device, offload_device=management.unet_offload_device()
    )
    return network


def _precision(network: nn.Module, device: torch.device) -> torch.dtype:
    half = getattr(network, "half_precision", torch.float16)
    usable = {
        torch.float16: management.should_use_fp16,
        torch.bfloat16: management.should_use_bf16,
    }
    return half if usable[half](device) else torch.float32


def networks_in(value: object) -> list[nn.Module]:
    """Every network that ComfyUI manages in rewards, terms and whatever they are made of."""
    found: dict[int, nn.Module] = {}

    def walk(part: object) -> None:
        if isinstance(part, nn.Module):
            if getattr(part, "patcher", None) is not None:
                found[id(part)] = part
        elif isinstance(part, Mapping):
            for item in part.values():
                walk(item)
        elif isinstance(part, list | tuple):
            for item in part:
                walk(item)
        elif dataclasses.is_dataclass(part) and not isinstance(part, type):
            walk(vars(part))

    walk(value)
    return list(found.values())


def bring_in(value: object) -> None:
    """Have ComfyUI load the networks of a reward, or of anything that holds some."""
    patchers = [network.patcher for network in networks_in(value)]
    if patchers:
        management.load_models_gpu(patchers)

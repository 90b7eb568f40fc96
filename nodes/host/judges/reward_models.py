"""Reward models as ComfyUI's own: found in its model folders, moved and freed by its management.

A network that ComfyUI manages carries its ModelPatcher as `patcher`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import comfy.model_management as management
import torch
from comfy.model_patcher import ModelPatcher
from torch import nn

from ....rewards.models import build
from ....rewards.models.files import read
from .tokenizers import tokenizer_of

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


def load(path: Path, precision: torch.dtype | None = None) -> nn.Module:
    """The network of a file or folder, under ComfyUI's management; in half precision on a GPU.

    Raises FileNotFoundError or ValueError, one sentence that names the file.
    """
    with torch.inference_mode(False), torch.no_grad():
        network = build(read(path)).train(False).requires_grad_(False)
        network.tokenizer = tokenizer_of(network, path)
        device = management.get_torch_device()
        _cast(network, precision or _precision(network, device), path.name)
    network.patcher = WholePatcher(
        network, load_device=device, offload_device=management.unet_offload_device()
    )
    return network


def _cast(network: nn.Module, dtype: torch.dtype, name: str) -> None:
    """Weights one after the other, so that no more memory is held than for the larger of both.

    Buffers that no file holds, such as tables of angles, stay as exact as they were made, and
    what a network names in `as_stored` as exact as its file.
    """
    exact = getattr(network, "as_stored", ())
    own = {id(tensor): (weight, tensor) for weight, tensor in _stored(network)}
    done: dict[tuple, torch.Tensor] = {}  # weights that share their memory go on sharing it
    for weight, tensor in own.values():
        key = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype)
        wanted = torch.promote_types(tensor.dtype, dtype) if weight.startswith(exact) else dtype
        if key not in done:
            done[key] = tensor.data.to(wanted)
        tensor.data = done[key]
        if tensor.numel() and not all(bound.isfinite() for bound in tensor.data.aminmax()):
            raise ValueError(
                f"{name} holds numbers in {weight} that are none, or too large for "
                f"{str(dtype).removeprefix('torch.')}: download it again, or choose fp32."
            )


def _stored(network: nn.Module) -> list[tuple[str, torch.Tensor]]:
    held = network.state_dict(keep_vars=True)
    return [(name, tensor) for name, tensor in held.items() if tensor.is_floating_point()]


def _precision(network: nn.Module, device: torch.device) -> torch.dtype:
    half = getattr(network, "half_precision", torch.float16)
    usable = {
        torch.float16: management.should_use_fp16,
        torch.bfloat16: management.should_use_bf16,
    }
    return half if usable[half](device) else torch.float32


def networks_in(value: object) -> list[nn.Module]:
    """Every network that ComfyUI manages in rewards, terms and whatever they are made of."""
    networks: dict[int, nn.Module] = {}

    def walk(part: object) -> None:
        if isinstance(part, nn.Module):
            if getattr(part, "patcher", None) is not None:
                networks[id(part)] = part
        elif isinstance(part, Mapping):
            for item in part.values():
                walk(item)
        elif isinstance(part, list | tuple):
            for item in part:
                walk(item)
        elif dataclasses.is_dataclass(part) and not isinstance(part, type):
            walk(vars(part))

    walk(value)
    return list(networks.values())


def bring_in(value: object) -> None:
    """Have ComfyUI load the networks of a reward, or of anything that holds some."""
    patchers = [network.patcher for network in networks_in(value)]
    if patchers:
        management.load_models_gpu(patchers)

"""Everything that a run borrows of the host, to be compared before and after."""

from __future__ import annotations

import random
import sys
from types import FunctionType, ModuleType

import comfy.model_management as management
import numpy as np
import torch

HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
PLAIN = (bool, int, float, str, type(None))
COUNTERS = {"comfy.model_management.current_loaded_models"}


def state(patcher, vae) -> dict[str, object]:
    """By name: bits, identities and switches. Equal before and after, or something was left."""
    found: dict[str, object] = {"modes": modes(), "options": dict(leaves(patcher.model_options))}
    found["patches"] = (sorted(patcher.patches), sorted(patcher.object_patches))
    for title, network in (("model", patcher.model), ("vae", vae.first_stage_model)):
        for name, module in network.named_modules():
            found[f"{title}.{name}"] = parts(module)
    return found


def parts(module: torch.nn.Module) -> dict[str, object]:
    """Of one module: its tensors' bits and switches, its own functions, its hooks."""
    found: dict[str, object] = {"training": module.training, "class": type(module)}
    for table in (module._parameters, module._buffers):
        for name, tensor in table.items():
            if tensor is not None:
                kept = (
                    type(tensor),
                    tensor.is_inference(),
                    tensor.requires_grad,
                    tensor.grad is None,
                )
                found[name] = (*kept, bits(tensor))
    for name, value in vars(module).items():
        if callable(value) or isinstance(value, PLAIN):
            found[f"its {name}"] = value if isinstance(value, PLAIN) else id(value)
    found["hooks"] = [list(getattr(module, name, ())) for name in HOOKS]
    return found


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.detach().cpu().reshape(-1).contiguous().view(torch.uint8).numpy().tobytes()


def leaves(value: object, path: str = ""):
    """(path, what is there) of nested dicts and lists."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield from leaves(item, f"{path}/{name}")
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield from leaves(item, f"{path}/{place}")
    else:
        yield path, value if isinstance(value, PLAIN) else id(value)


def modes() -> dict[str, object]:
    """torch's switches, and what stands in its stacks."""
    return {
        "grad": torch.is_grad_enabled(),
        "inference": torch.is_inference_mode_enabled(),
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "autocast": torch.is_autocast_enabled(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "anomaly": torch.is_anomaly_enabled(),
        "functions": torch._C._len_torch_function_stack(),
        "dispatches": torch._C._len_torch_dispatch_stack(),
        "saved": torch._C._autograd._top_saved_tensors_default_hooks(True),
        "threads": torch.get_num_threads(),
        "interrupted": management.processing_interrupted(),
    }


def generators() -> tuple:
    """The states of Python's, numpy's and torch's generators."""
    kind, keys, *rest = np.random.get_state()
    return random.getstate(), (kind, keys.tobytes(), *rest), bits(torch.get_rng_state())


def modules() -> dict[str, object]:
    """What every module of ComfyUI and its classes hold: functions, classes and plain values."""
    found = {}
    for name, module in list(sys.modules.items()):
        if not name.startswith(("comfy", "nodes", "latent_preview", "execution", "folder_paths")):
            continue
        for attribute, value in list(vars(module).items()):
            where = f"{name}.{attribute}"
            if isinstance(value, type) and value.__module__ == name:
                own = vars(value).items()
                found |= {f"{where}.{n}": id(v) for n, v in own if isinstance(v, FunctionType)}
            if isinstance(value, PLAIN):
                found[where] = value
            elif callable(value) or isinstance(value, ModuleType):
                found[where] = id(value)
    return {name: value for name, value in found.items() if name not in COUNTERS}


def differences(before: dict, after: dict) -> list[str]:
    """The names of what differs or is gone; what came new with an import is not ours."""
    return [name for name, value in before.items() if name not in after or after[name] != value]

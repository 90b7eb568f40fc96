"""What differs between versions of ComfyUI, asked here and nowhere else.

A new version of the host that moves something is one change in this file.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import comfy.model_management as management
import comfy.ops
import torch
from comfy_api.latest import io
from torch import Tensor

try:
    import comfy_kitchen
    import comfy_kitchen.backends.eager
except ImportError:  # ComfyUI before 2026
    comfy_kitchen = None

T = TypeVar("T")

# ComfyUI's fp8 products before 2026 have no backward.
FP8_CUTS_GRADIENTS = hasattr(comfy.ops, "fp8_linear") and not hasattr(comfy.ops, "QuantLinearFunc")


def supported(make: Callable[..., T], /, *arguments: object, **keywords: object) -> T:
    """`make(*arguments, **keywords)` without the keywords that this ComfyUI does not know.

    For example `supported(io.Float.Input, "mu", default=0.01, advanced=True)`.
    """
    known = inspect.signature(make).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in known.values()):
        return make(*arguments, **keywords)
    return make(*arguments, **{name: value for name, value in keywords.items() if name in known})


def searched_by(keywords: dict[str, object], own: Sequence[str], every: Sequence[str]) -> None:
    """Have a schema's keywords say which words find the node.

    Where ComfyUI has no place for them, `own` are said at the end of the description.
    """
    if "search_aliases" in inspect.signature(io.Schema).parameters:
        keywords["search_aliases"] = [*own, *every]
    elif own:
        keywords["description"] = f"{keywords['description']} ({', '.join(own)})"


@contextmanager
def training(on: bool = True) -> Iterator[None]:
    """Newer ComfyUI picks fused kernels without a backward unless it believes to be training."""
    missing = object()
    before = getattr(management, "in_training", missing)
    management.in_training = on
    try:
        yield
    finally:
        if before is missing:
            del management.in_training
        else:
            management.in_training = before


def kitchen(func: Callable, beginnings: tuple[str, ...]) -> Callable:
    """The plain torch that one of comfy-kitchen's ops stands for; any other function itself."""
    space, _, name = getattr(func, "_qualified_op_name", "").partition("::")
    if space == "comfy_kitchen" and name.startswith(beginnings):
        return getattr(comfy_kitchen.backends.eager, name, func)
    return func


def intermediate_dtype(samples: Tensor) -> torch.dtype:
    """The precision in which KSampler hands latents on."""
    return getattr(management, "intermediate_dtype", lambda: samples.dtype)()


def uncast() -> Callable | None:
    """What newer ComfyUI calls when a layer is done with the weights that it was given."""
    return getattr(comfy.ops, "uncast_bias_weight", None)


def offload_streams(device: torch.device) -> tuple[torch.Stream | None, Sequence]:
    """The present stream of the device, and those that fetch weights ahead of it, if any."""
    if not hasattr(management, "current_stream"):
        return None, ()
    present = management.current_stream(device)
    streams = getattr(management, "STREAMS", {}).get(device, ())
    return present, streams if present is not None else ()

"""Switches of the host that must be set while gradients flow, forward and backward alike."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar

import comfy.ldm.modules.attention
import comfy.model_patcher
import comfy.ops
import comfy.patcher_extension
import torch
from comfy.ldm.modules.attention import attention_pytorch
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode

from ....dno.autograd.graph import GradientCutError
from ....dno.autograd.saved import insist_on_writes_allowed
from .. import compat

LARGE = ("sub_quad", "split", "basic")  # attention whose graph keeps attention matrices
ATTENTION = ("optimized_attention", "optimized_attention_masked")  # as ComfyUI's models name it
OVERRIDE = "optimized_attention_override"
FUSED = ("apply_rope", "rms_", "adaln")  # of comfy-kitchen's ops: those that diffusion models call

_own_kernels: ContextVar[bool] = ContextVar("own_kernels", default=False)


class PlainKernels(TorchFunctionMode):
    """comfy-kitchen's fused ops as the plain torch that they stand for: those have no backward."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return compat.kitchen(func, FUSED)(*args, **(kwargs or {}))


def kernels(executor, model, conds, *args):
    """With a gradient, kernels that have one; without, the user's own: his pictures bit for bit."""
    if not torch.is_grad_enabled():
        with compat.training(False):
            return executor(model, conds, *args)
    if any(entry.get("hooks") for entries in conds if entries for entry in entries):
        insist_on_writes_allowed()  # hooks swap weights between prompts, past autograd's counters
    with PlainKernels() if compat.comfy_kitchen else nullcontext(), casting_products(model):
        return executor(model, conds, *args)


@contextmanager
def casting_products(network: torch.nn.Module) -> Iterator[None]:
    """fp8 products without a backward: multiply by the weights cast up."""
    if not compat.FP8_CUTS_GRADIENTS:
        yield
        return
    layers = [m for m in network.modules() if getattr(m, "_full_precision_mm", True) is False]
    fp8_linear, comfy.ops.fp8_linear = comfy.ops.fp8_linear, lambda layer, x: None
    for layer in layers:
        layer._full_precision_mm = True
    try:
        yield
    finally:
        comfy.ops.fp8_linear = fp8_linear
        for layer in layers:
            layer._full_precision_mm = False


def attention(chosen: Callable | None) -> Callable:
    """The user's attention, with torch's in its place where a gradient is wanted.

    Sage, flash and int8 have no backward, and ComfyUI's sub-quadratic and split attention keep
    whole attention matrices for theirs: torch's keeps q, k, v and the output. The difference to the
    picture's kernel is rounding; within `own_kernels` it is taken in backward alone.

    chosen: the override that the model carries already.
    """

    def attend(function, q, k, v, *args, **kwargs):
        own = functools.partial(chosen, function) if chosen else function
        if not (torch.is_grad_enabled() and any(t.requires_grad for t in (q, k, v))):
            return own(q, k, v, *args, **kwargs)
        if _is_opaque(chosen):
            own = _lean(own)
        elif _is_opaque(function) or _is_large(function):
            lean = _lean(function)
            own = functools.partial(chosen, lean) if chosen else lean
        result = own(q, k, v, *args, **kwargs)
        return result if result.requires_grad else attention_pytorch(q, k, v, *args, **kwargs)

    return attend


@contextmanager
def attention_everywhere() -> Iterator[None]:
    """Within, `attention` stands in too where a model hands no options on that would ask for it."""
    own, before = attention(None), []
    modules = {id(module): module for module in sys.modules.copy().values()}
    del modules[id(comfy.ldm.modules.attention)]  # which others import it from

    def standing_in(function):
        @functools.wraps(function)
        def attend(*args, **kwargs):
            if OVERRIDE in (kwargs.get("transformer_options") or ()):
                return function(*args, **kwargs)
            return own(function, *args, **kwargs)

        return attend

    try:
        for module in modules.values():
            for name in ATTENTION:
                function = getattr(module, "__dict__", {}).get(name)
                if callable(function):
                    before.append((module, name, function))
                    setattr(module, name, standing_in(function))
        yield
    finally:
        for module, name, function in before:
            setattr(module, name, function)


@contextmanager
def own_kernels() -> Iterator[None]:
    """Within, attention with a gradient gives what it gives without, bit for bit."""
    token = _own_kernels.set(True)
    try:
        yield
    finally:
        _own_kernels.reset(token)


def _lean(function: Callable) -> Callable:
    """Attention that keeps q, k and v for backward, which is that of torch's attention."""
    if not _own_kernels.get():
        return attention_pytorch
    return lambda q, k, v, *args, **kwargs: _LeanAttention.apply(function, args, kwargs, q, k, v)


class _LeanAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx, function, args, kwargs, *qkv):
        ctx.args, ctx.kwargs = args, dict(kwargs)
        ctx.save_for_backward(*qkv)
        return function(*qkv, *args, **kwargs)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        wanted = ctx.needs_input_grad[3:]
        qkv = [t.detach().requires_grad_(w) for t, w in zip(ctx.saved_tensors, wanted, strict=True)]
        with torch.enable_grad():
            out = attention_pytorch(*qkv, *ctx.args, **ctx.kwargs)
        gradients = iter(torch.autograd.grad(out, [t for t in qkv if t.requires_grad], gradient))
        return None, None, None, *(next(gradients) if t.requires_grad else None for t in qkv)


def differentiable_options(model_options: dict, calc_cond_batch) -> dict:
    """A copy of the run's model options whose denoiser calls go through `calc_cond_batch`."""
    options = comfy.model_patcher.create_model_options_clone(model_options)
    options.pop("multigpu_clones", None)  # its threads have no gradient: one device does it all
    transformer = options.setdefault("transformer_options", {})
    transformer[OVERRIDE] = attention(transformer.get(OVERRIDE))
    for wrapper in (calc_cond_batch, kernels):
        comfy.patcher_extension.add_wrapper_with_key(
            comfy.patcher_extension.WrappersMP.CALC_COND_BATCH,
            "comfyui-dno",
            wrapper,
            options,
            is_model_options=True,
        )
    return options


@contextmanager
def refuse_cut_gradients(network: torch.nn.Module) -> Iterator[None]:
    """Refuse a network whose output has lost the gradient; the sampler's own part would hide it."""

    def check(module, arguments, output) -> None:
        wanted = torch.is_grad_enabled() and any(
            isinstance(x, torch.Tensor) and x.requires_grad for x in arguments
        )
        if wanted and isinstance(output, torch.Tensor) and not output.requires_grad:
            raise GradientCutError(
                "This model cannot be differentiated: its network passes no gradient. Use it "
                "without TensorRT, Nunchaku or other compiled parts."
            )

    handle = network.register_forward_hook(check)
    try:
        yield
    finally:
        handle.remove()


def _is_large(function: Callable) -> bool:
    return any(kind in getattr(function, "__name__", "") for kind in LARGE)


def _is_opaque(function: Callable | None) -> bool:
    name = getattr(function, "__name__", "").lower()
    return any(kind in name for kind in ("sage", "flash", "int8"))

"""Weights that come and go: cast or streamed for one product, and fetched again in backward.

ComfyUI keeps weights in eight bits, in ordinary memory or packed (GGUF), and makes of them what one
layer needs, in newer versions in a buffer that the next layer overwrites. Autograd would keep all
of these, or worse, read what the buffer holds by then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import comfy.ops
import torch
from torch import Tensor, nn

from ....dno.autograd.saved import Again, storage
from ..compat import offload_streams, uncast


@dataclass(frozen=True)
class _Cast:
    """What was made for a layer's product.

    tensors: weight and bias, None where they are the layer's own.
    make:    makes them again: weight, bias and what the host needs back.
    scaled:  the shape of a weight that the layer multiplies by its scale first (scaled fp8).
    """

    layer: nn.Module
    tensors: tuple[Tensor | None, ...]
    make: Callable[[], tuple]
    scaled: torch.Size | None = None


class Weights:
    """Knows of a saved tensor whether it is a weight that was made for one product.

    steady: whether what the network's are made of stays the same until backward.
    """

    def __init__(self) -> None:
        self.steady = True
        self._last: _Cast | None = None

    @contextmanager
    def watched(self, networks: Iterable[nn.Module]) -> Iterator[None]:
        """Within, layers tell what they are given, by ComfyUI or by a method of their own class."""
        networks = list(networks)
        if not casting(networks):
            yield
            return
        cast, back = comfy.ops.cast_bias_weight, uncast()
        own = [m for n in networks for m in n.modules() if _unpacks(m)]
        comfy.ops.cast_bias_weight = self._noting(cast)
        if back is not None:
            comfy.ops.uncast_bias_weight = self._forgetting(back)
        for layer in own:  # GGUF's
            layer.cast_bias_weight = self._noting_own(layer, layer.cast_bias_weight)
        try:
            yield
        finally:
            self._last = None
            comfy.ops.cast_bias_weight = cast
            if back is not None:
                comfy.ops.uncast_bias_weight = back
            for layer in own:
                vars(layer).pop("cast_bias_weight", None)

    def of(self, network: nn.Module) -> Again | None:
        """What fetches what is saved of a network without hooks; None if it casts no weights."""
        return self._fetch if casting([network]) else None

    def again(self, tensor: Tensor) -> Callable[[], Tensor] | None:
        """What fetches a saved tensor again, if it is what a layer was given for its product.

        None while weights are not steady: hooks may have made others of them by then.
        """
        return self._fetch(tensor) if self.steady else None

    def _fetch(self, tensor: Tensor) -> Callable[[], Tensor] | None:
        last = self._last
        if last is None:
            return None
        for index, cast in enumerate(last.tensors):
            if cast is not None and storage(cast) and storage(cast) == storage(tensor):
                return _Fetch(last, index, tensor, cast.storage_offset())
        if last.scaled and tensor.shape in (last.scaled, last.scaled[::-1]):
            return _Fetch(last, 0, tensor, 0, scaled=True)
        return None

    def _noting(self, cast: Callable) -> Callable:
        def cast_bias_weight(layer, input=None, *others, **named):
            given = cast(layer, input, *others, **named)
            if torch.is_grad_enabled():
                like, scaled = _like(input), None
                if getattr(layer, "scale_weight", None) is not None and input is not None:
                    scaled = given[0].shape if given[0].numel() < input.numel() else None
                self._note(layer, given, lambda: cast(layer, like, *others, **named), scaled)
            return given

        return cast_bias_weight

    def _noting_own(self, layer: nn.Module, cast: Callable) -> Callable:
        def cast_bias_weight(input=None, *others, **named):
            given = cast(input, *others, **named)
            if torch.is_grad_enabled():
                like = _like(input)
                self._note(layer, given, lambda: cast(like, *others, **named))
            return given

        return cast_bias_weight

    def _forgetting(self, back: Callable) -> Callable:
        def uncast_bias_weight(*arguments, **named):
            self._last = None
            return back(*arguments, **named)

        return uncast_bias_weight

    def _note(self, layer, given: tuple, make: Callable[[], tuple], scaled=None) -> None:
        held = {storage(p) for p in (layer.weight, layer.bias) if p is not None}
        tensors = tuple(t if t is not None and storage(t) not in held else None for t in given[:2])
        cast = scaled or any(tensor is not None for tensor in tensors)
        self._last = _Cast(layer, tensors, make, scaled) if cast else None


class _Fetch:
    """Makes a layer's weight or bias again, as autograd had saved it."""

    def __init__(self, cast: _Cast, index: int, saved: Tensor, offset: int, scaled: bool = False):
        self._layer, self._make, self._index = cast.layer, cast.make, index
        self._scaled = scaled
        self._view = saved.size(), saved.stride(), saved.storage_offset() - offset

    @torch.no_grad()
    def __call__(self) -> Tensor:
        given = self._make()
        tensor = given[self._index]
        scale = self._layer.scale_weight.to(tensor) if self._scaled else None
        # Memory of its own: a buffer goes to the next layer.
        tensor = tensor.clone() if scale is None else tensor * scale
        if len(given) > 2:
            comfy.ops.uncast_bias_weight(self._layer, *given)
        return tensor.as_strided(*self._view)


def casting(networks: Iterable[nn.Module]) -> bool:
    """Whether any layer's weights may be made for each product anew."""
    return any(_casts(module) for network in networks for module in network.modules())


def _casts(module: nn.Module) -> bool:
    functions = (getattr(module, f"{name}_function", ()) for name in ("weight", "bias"))
    cast = getattr(module, "comfy_cast_weights", False) or any(map(len, functions))
    return bool(cast or _unpacks(module))


def _unpacks(module: nn.Module) -> bool:
    """Whether its class makes its weights by a method of its own, as GGUF's does."""
    return hasattr(type(module), "cast_bias_weight")


def _like(input: Tensor | None) -> Tensor | None:
    """An empty tensor that asks for the same cast as `input`."""
    if input is None:
        return None
    params = getattr(input, "_layout_params", None)
    dtype = params["orig_dtype"] if params else input.dtype
    return torch.empty(0, dtype=dtype, device=input.device)


def offload_streams_wait(device: torch.device) -> None:
    """Hold the streams that fetch weights until all that is queued has been computed.

    ComfyUI lets them run ahead, as in inference a weight is read once, soon after it was fetched.
    Backward reads late what was fetched early, and a new fetch may be given the same memory.
    """
    present, streams = offload_streams(device)
    for stream in streams:
        stream.wait_stream(present)

"""What stands in a twin's globals for what would cut the gradient or draw past the tape."""

from __future__ import annotations

from contextlib import ContextDecorator

import torch

from ....dno.draws import taped


class _Nothing(ContextDecorator):
    """A context and a decorator that changes nothing."""

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False


def nothing(mode=True):
    """In place of `torch.no_grad` and `torch.inference_mode`, with or without parentheses."""
    return mode if callable(mode) else _Nothing()


class TorchWithGradients:
    """`torch` as a twin sees it: what switches gradients off does nothing."""

    no_grad = inference_mode = set_grad_enabled = staticmethod(nothing)

    def __getattr__(self, name: str):
        return getattr(torch, name)


def _taped(original: type) -> type:
    """Brownian motion: an increment is one draw, whatever the tree draws for itself."""
    return type(original.__name__, (original,), {"__call__": taped(original.__call__)})


def _with_fixed_steps(original: type) -> type:
    """dpm_adaptive's step sizes are constants of the gradient: they only steer the error."""

    class FixedStepSizeController(original):
        def propose_step(self, error):
            return super().propose_step(error.detach())

    return FixedStepSizeController


ADAPTED = {"BrownianTreeNoiseSampler": _taped, "PIDStepSizeController": _with_fixed_steps}

"""Numbers that no climb survives, told by iteration and name."""

from __future__ import annotations

import torch
from torch import Tensor


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity; the message names the iteration and the term."""


class PictureError(NonFiniteError):
    """The decoded picture holds one: no reward has seen it."""


class NoGradientError(ArithmeticError):
    """The reward's gradient is exactly zero for every image: there is nothing to climb."""


def check_finite(
    value: Tensor, step: int, name: str, error: type[NonFiniteError] = NonFiniteError
) -> None:
    """Raise `error`, naming what it is and the iteration, unless all of `value` is finite."""
    if not torch.isfinite(value).all():
        raise error(f"The {name} is not finite (NaN or infinity) at iteration {step}.")

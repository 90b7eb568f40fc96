from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from .adam import Adam
from .base import Gradients, Optimizer, Step


@dataclass(frozen=True)
class Spectral(Optimizer):
    """Another optimizer at work on the Fourier coefficients of the noise (SONIC, 2511.19985).

    y = rfft2(z) in torch's default scaling, as in its code: white noise of H x W has coefficients
    of size sqrt(HW), and rates are to be read against that.
    """

    optimizer: Optimizer = field(default_factory=Adam)

    def start(self, leaves: Sequence[Tensor], learning_rate: float) -> Step:
        coefficients = [torch.fft.rfft2(leaf.detach().float()).requires_grad_() for leaf in leaves]
        inner = self.optimizer.start(coefficients, learning_rate)

        def back() -> list[Tensor]:
            pairs = zip(leaves, coefficients, strict=True)
            return [torch.fft.irfft2(y, s=leaf.shape[-2:]) for leaf, y in pairs]

        def pulled(gradients: Sequence[Tensor]) -> list[Tensor]:
            with torch.enable_grad():
                noise = back()
                pulls = [g.to(z) for g, z in zip(gradients, noise, strict=True)]
                return list(torch.autograd.grad(noise, coefficients, pulls))

        def step(gradients: Gradients, objective: Tensor) -> None:
            inner(lambda: pulled(gradients()), objective)
            with torch.no_grad():
                for leaf, moved in zip(leaves, back(), strict=True):
                    leaf.copy_(moved)

        return step

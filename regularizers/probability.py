from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from torch import Tensor

from ..dno.fields import Choice, Range
from ..dno.noise import Noise
from ..dno.objective import Regularizer
from ..dno.sharing import once
from ._shuffle import moments, shuffled_moments
from ._vector import vector

_LOG2 = math.log(2)


@dataclass(frozen=True)
class Probability(Regularizer):
    """Keeps the mean and covariance of the noise where a Gaussian's would be.

    Direct Noise Optimization, arXiv 2405.18881, section 4. The noise of one image, all tensors
    that are optimised, is one vector of n numbers, cut into m = n // k rows z_i of k. With
        M1 = || mean z_i ||,    M2 = || mean z_i z_i^T - I || (spectral norm),
        log p1 = min(0, log 2 - m M1^2 / (2k)),
        log p2 = min(0, log 2 - m/2 max(sqrt(1 + M2) - 1 - sqrt(k/m), 0)^2)
    the score is log p1 + log p2, plus its mean over random permutations of the n numbers. It is
    exactly 0, with gradient exactly 0, where the bounds are not violated, and negative elsewhere.

    Form. "paper" is that sum. A weight for it does not transfer between sizes: outside the typical
    set its gradient has a norm that depends on p alone, while a reward that answers to how the
    noise is distributed has a gradient that falls with 1 / sqrt(n). "normalised" divides by
    sqrt(m), so that one weight holds the same P(z) at every size and number of steps; 1 suits
    rewards of range 1.

    The permutations depend on n alone, never on the call: the score is a fixed function of the
    noise.

    >>> fresh, flat = Noise(torch.randn(1, 4, 16, 16)), Noise(torch.ones(1, 4, 16, 16))
    >>> Probability()(fresh) > Probability()(flat)
    tensor([True])
    """

    aliases = ("Gaussian", "natural", "P(z)", "protect")
    keeps = "mean and covariance of the noise"
    source = "arXiv 2405.18881, section 4"

    k: Annotated[int, Range(1, 16, step=1, help="Numbers per row of the test; 4 in the paper.")] = 4
    permutations: Annotated[
        int,
        Range(
            1, 1000, step=1, help="Random orders in which the noise is tested; 100 in the paper."
        ),
    ] = 100
    form: Annotated[
        str,
        Choice(
            ("normalised", "paper"),
            help="normalised: one weight fits all sizes and step counts. paper: the published sum.",
        ),
    ] = "normalised"

    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,), 0 or less."""
        rows = self._rows(noise)
        own = torch.add(*_log_bounds(*moments(rows, self.k), rows.shape[1] // self.k))
        shuffled = torch.add(*self._shuffled(noise, rows))
        scale = 1.0 if self.form == "paper" else math.sqrt(rows.shape[1] // self.k)
        return (own + shuffled.mean(dim=1)) / scale

    @torch.no_grad()
    def indicator(self, noise: Noise) -> Tensor:
        """P(z), (B,): the smallest p1 or p2 of all orders; near 0 the noise is not Gaussian."""
        rows = self._rows(noise)
        own = torch.minimum(*_log_bounds(*moments(rows, self.k), rows.shape[1] // self.k))
        shuffled = torch.minimum(*self._shuffled(noise, rows)).amin(dim=1)
        return torch.minimum(own, shuffled).exp()

    def _rows(self, noise: Noise) -> Tensor:
        """Noise -> (B,n), enough numbers for one row."""
        rows = vector(noise)
        if rows.shape[1] < self.k:
            raise ValueError(
                f"Probability: k is {self.k}, but only {rows.shape[1]} numbers of noise are "
                "optimised per image; lower k, or optimise more of the noise."
            )
        return rows

    def _shuffled(self, noise: Noise, rows: Tensor) -> tuple[Tensor, Tensor]:
        """log p1 and log p2 of every order (B,b); the score and the indicator share them."""

        def compute(noise: Noise) -> tuple[Tensor, Tensor]:
            mean, second = shuffled_moments(rows, self.k, self.permutations, noise)
            return _log_bounds(mean, second, rows.shape[1] // self.k)

        return once((Probability, self.k, self.permutations), noise, compute)


def _log_bounds(mean: Tensor, second: Tensor, m: int) -> tuple[Tensor, Tensor]:
    """Moments (...,k) and (...,k,k) of m rows -> log p1, log p2, each (...)."""
    k = mean.shape[-1]
    log_p1 = (_LOG2 - m * mean.square().sum(-1) / (2 * k)).clamp(max=0)
    # On the CPU: not every device has eigvalsh. Its gradient v v^T needs no distinct values.
    deviation = (second - torch.eye(k, dtype=second.dtype, device=second.device)).cpu()
    m2 = torch.linalg.eigvalsh(deviation).abs().amax(-1).to(second.device)
    excess = ((1 + m2).sqrt() - 1 - math.sqrt(k / m)).clamp(min=0)
    return log_p1, (_LOG2 - m / 2 * excess.square()).clamp(max=0)

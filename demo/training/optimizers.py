"""Muon (Keller Jordan 2024) with all matrices of a shape orthogonalised at once, and averaging."""

from collections import defaultdict

import torch
from torch import Tensor, nn

from .precision import FAST

ITERATIONS = 3


class BatchedMuon(torch.optim.Optimizer):
    """Nesterov momentum whose update is orthogonalised; ``lr`` is comparable to Adam's.

    torch.optim.Muon takes matrices one by one; on a CPU one batched product is twice as fast,
    and here a convolution kernel counts as a matrix of its output channels.
    """

    def __init__(
        self,
        weights: list[Tensor],
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(weights, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None) -> None:
        for group in self.param_groups:
            by_shape = defaultdict(list)
            for weight in group["params"]:
                update = self._momentum(weight, group["momentum"]).flatten(1)
                wide = update if update.shape[0] <= update.shape[1] else update.mT
                by_shape[wide.shape].append((weight, wide))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
            for shape, members in by_shape.items():
                step = -group["lr"] * 0.2 * shape[1] ** 0.5
                matrices = orthogonal(torch.stack([wide for _, wide in members]))
                for (weight, _), matrix in zip(members, matrices, strict=True):
                    matrix = matrix if weight.shape[0] == shape[0] else matrix.mT
                    weight.add_(matrix.reshape(weight.shape), alpha=step)

    def _momentum(self, weight: Tensor, momentum: float) -> Tensor:
        buffer = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        buffer.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(buffer, momentum)


class MuonAndAdam:
    """Muon for some matrices of a network, and Adam for its other weights, clipped to norm 1."""

    def __init__(
        self, network: nn.Module, matrices: list[Tensor], rate: float, weight_decay: float
    ) -> None:
        chosen = {id(matrix) for matrix in matrices}
        self._network, self._rate = network, rate
        self._others = [p for p in network.parameters() if id(p) not in chosen]
        self.muon = BatchedMuon(matrices, lr=rate, weight_decay=weight_decay)
        self.adam = torch.optim.AdamW(
            self._others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0, fused=True
        )

    def step(self, loss: Tensor, share: float) -> None:
        """Go down the loss, at this share of the rate."""
        self._network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self._others, 1.0)
        for optimizer in (self.muon, self.adam):
            optimizer.param_groups[0]["lr"] = self._rate * share
            optimizer.step()


def orthogonal(matrices: Tensor) -> Tensor:
    """Wide matrices with singular values brought near 1 by a quintic Newton-Schulz iteration."""
    scaled = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    result = scaled.to(FAST)
    for _ in range(ITERATIONS):
        gram = result @ result.mT
        quadratic = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
        result = torch.baddbmm(result, quadratic, result, beta=3.4445)
    return result.to(matrices.dtype)


@torch.no_grad()
def exponential_average(average: nn.Module, network: nn.Module, weight: float) -> None:
    """Move ``average`` by ``weight`` of the way to ``network``."""
    torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), weight)

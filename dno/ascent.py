"""The loop: noise in, one `Iterate` out per iteration; the caller's `for` body decides the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from .checks import NoGradientError, check_finite
from .gradient import Evaluated, Exact, Gradient, Problem, by_image
from .noise import Noise
from .objective import Objective
from .optimizers import Adam, Optimizer, Step
from .sharing import sharing


@dataclass(frozen=True)
class Iterate:
    """One picture of the climb, all detached.

    step:       0 is what the plain sampler gives.
    objective:  (B,) all of it, higher is better; `reward` is its part on the image.
    terms:      name -> (B,), each term unweighted.
    indicators: name -> (B,), read-outs of the noise.
    latent:     (B,C,...) the sample; image (B,3,H,W) in [0,1].
    noise:      the noise that gave it, alive: `snapshot()` it to keep it beyond this iterate.
    """

    step: int
    objective: Tensor
    reward: Tensor
    terms: Mapping[str, Tensor]
    indicators: Mapping[str, Tensor]
    latent: Tensor
    image: Tensor
    noise: Noise


def ascend(
    render: Callable[[Noise], Tensor],
    decode: Callable[[Tensor], Tensor],
    objective: Objective,
    noise: Noise,
    *,
    optimizer: Optimizer | None = None,
    learning_rate: float = 0.01,
    iterations: int = 50,
    clip: float = 1.0,
    gradient: Gradient | None = None,
    at_once: Callable[[], int] = lambda: 1,
) -> Iterator[Iterate]:
    """Direct Noise Optimization (arXiv 2405.18881, eq. 3 and algorithm 1) as a generator.

    render: noise -> sample, differentiable when grad mode is on, plain when it is off. Its first
        call records the injected noise on `noise.tape()`, later calls replay it.
    decode: sample -> image (B,3,H,W) in [0,1], differentiable.
    clip:   bound of each image's own gradient norm; 0 switches clipping off.
    at_once: see Problem.

    Yields `iterations + 1` iterates; there is no backward pass after the last one, nor after one at
    which the caller stops. Raises NonFiniteError or NoGradientError, naming iteration and term.
    """
    gradient, problem = gradient or Exact(), Problem(render, decode, objective, at_once)
    update = _Update(optimizer or Adam(), learning_rate)
    try:
        for step in range(iterations + 1):
            climb = step < iterations
            evaluated = gradient.evaluate(problem, noise, step, climb)
            iterate, regularization = weighed(evaluated, objective, noise, step, climb)
            yield iterate
            if not climb:
                break
            pull = partial(_clipped, evaluated, regularization, noise, step, clip)
            del evaluated, regularization
            update(noise.leaves(), pull, iterate.objective)
            del pull  # and with it the graphs, before the next render
    finally:
        update.close()


class _Update:
    """An optimiser's steps; it starts anew where a sampling draws more than the last one did."""

    def __init__(self, optimizer: Optimizer, learning_rate: float):
        self._optimizer, self._rate = optimizer, learning_rate
        self._step: Step | None = None
        self._moved = 0

    def __call__(self, leaves: list[Tensor], pull: Callable, reached: Tensor) -> None:
        if self._step is None or len(leaves) > self._moved:
            self.close()
            self._step, self._moved = self._optimizer.start(leaves, self._rate), len(leaves)
        self._step(pull, reached)

    def close(self) -> None:
        getattr(self._step, "close", lambda: None)()


def weighed(
    evaluated: Evaluated, objective: Objective, noise: Noise, step: int, climb: bool
) -> tuple[Iterate, Tensor]:
    """What an evaluation makes with the regularizers' score of its noise, and that score (B,)."""
    with sharing():  # a regularizer and its indicator read the same numbers
        with torch.set_grad_enabled(climb):
            regularization, regularizers = objective.regularization(noise)
        terms = {**evaluated.terms, **{name: term.detach() for name, term in regularizers.items()}}
        for name, term in terms.items():
            check_finite(term, step, f"term {name!r}")
        with torch.no_grad():
            indicators = objective.read_outs(noise)
    total = evaluated.reward + regularization.detach().to(evaluated.reward)
    latent, image = evaluated.latent, evaluated.image
    iterate = Iterate(step, total, evaluated.reward, terms, indicators, latent, image, noise)
    return iterate, regularization


@torch.enable_grad()
def _clipped(
    evaluated: Evaluated, regularization: Tensor, noise: Noise, step: int, clip: float
) -> list[Tensor]:
    gradients = _gradients(evaluated, regularization, noise, step)
    _clip_per_image(gradients, clip)
    return gradients


def _gradients(
    evaluated: Evaluated, regularization: Tensor, noise: Noise, step: int
) -> list[Tensor]:
    """d(objective)/d(noise) for every leaf: the reward's and the regularizers'."""
    leaves, gradients = noise.leaves(), evaluated.gradients()
    if not any(bool(g.any()) for g in gradients):
        raise NoGradientError(
            f"The reward has no gradient at iteration {step}: it does not change with the image "
            "here (a constant or stepwise reward, or a target that is already reached)."
        )
    if regularization.requires_grad:
        pulls = torch.autograd.grad(regularization.sum(), leaves, allow_unused=True)
        gradients = [g if p is None else g + p for g, p in zip(gradients, pulls, strict=True)]
    for g in gradients:
        check_finite(g, step, "gradient of the noise")
    return gradients


def _clip_per_image(gradients: Sequence[Tensor], bound: float) -> None:
    """Scale each image's gradient, over all its tensors together, to norm `bound` at most."""
    if bound <= 0:
        return
    squares = torch.stack([g.flatten(1).float().square().sum(dim=1) for g in gradients]).sum(0)
    factor = (bound / squares.sqrt().clamp(min=bound)).to(gradients[0].dtype)
    for g in gradients:
        g.mul_(by_image(factor, g))

"""The loop: noise in, one `Iterate` out per iteration; the caller's `for` body decides the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .gradient import Exact, Gradient, Point, Scored
from .noise import Noise
from .objective import Objective
from .optimizers import Adam, Optimizer, Step


@dataclass(frozen=True)
class Iterate:
    """One picture of the climb, all detached.

    step:       0 is what the plain sampler gives.
    score:      (B,) the whole objective, higher is better; `reward` is its part on the image.
    terms:      name -> (B,), each term unweighted.
    indicators: name -> (B,), read-outs of the noise.
    latent:     (B,C,...) the sample; image (B,3,H,W) in [0,1].
    noise:      the noise that gave it, alive: `snapshot()` it to keep it beyond this iterate.
    """

    step: int
    score: Tensor
    reward: Tensor
    terms: Mapping[str, Tensor]
    indicators: Mapping[str, Tensor]
    latent: Tensor
    noise: Noise
    image: Tensor | None


class NonFiniteError(ArithmeticError):
    """A NaN or an infinity; the message names the iteration and the term."""


class NoGradientError(ArithmeticError):
    """The reward's gradient is exactly zero for every image: there is nothing to climb."""


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
) -> Iterator[Iterate]:
    """Direct Noise Optimization (arXiv 2405.18881, eq. 3 and algorithm 1) as a generator.

    render: noise -> sample, differentiable when grad mode is on, plain when it is off. Its first
        call records the injected noise on `noise.tape()`, later calls replay it.
    decode: sample -> image (B,3,H,W) in [0,1], differentiable.
    clip:   bound of each image's own gradient norm; 0 switches clipping off.

    Yields `iterations + 1` iterates; there is no backward pass after the last one, nor after one at
    which the caller stops. Raises NonFiniteError or NoGradientError, naming iteration and term.
    """
    gradient, optimizer = gradient or Exact(), optimizer or Adam()
    update: Step | None = None
    for step in range(iterations + 1):
        climb = step < iterations
        with torch.set_grad_enabled(climb and gradient.through_sampling):
            latent = render(noise)
        _check(latent, step, "latent (the model's output)")
        point = Point(step, latent.detach(), noise, render, decode)
        scored = gradient.score(point, objective, climb)
        with torch.set_grad_enabled(climb):
            regularization, regularizers = objective.regularization(noise)
        yield _iterate(
            step, scored, regularization, regularizers, objective, latent.detach(), noise
        )
        if not climb:
            return
        gradients = _backward(latent, scored, regularization, noise, step)
        del latent, scored, regularization  # the graphs are spent: free them before the next render
        _clip_per_image(gradients, clip)
        update = update or optimizer.start(noise.leaves(), learning_rate)
        update(gradients)


def _iterate(
    step: int,
    scored: Scored,
    regularization: Tensor,
    regularizers: Mapping[str, Tensor],
    objective: Objective,
    latent: Tensor,
    noise: Noise,
) -> Iterate:
    terms = {**scored.terms, **{name: term.detach() for name, term in regularizers.items()}}
    for name, term in terms.items():
        _check(term, step, f"term {name!r}")
    with torch.no_grad():
        indicators = {name: read(noise) for name, read in objective.indicators.items()}
    score = scored.reward + regularization.detach().to(scored.reward)
    return Iterate(step, score, scored.reward, terms, indicators, latent, noise, scored.image)


def _backward(
    latent: Tensor, scored: Scored, regularization: Tensor, noise: Noise, step: int
) -> list[Tensor]:
    """d(objective)/d(noise) for every leaf: upper half, lower half, regularizer."""
    leaves = noise.leaves()
    if scored.direct is None:
        gradients = _pull_through(latent, scored.pull(), leaves, step)
    else:
        gradients = scored.direct()
    if not any(bool(g.any()) for g in gradients):
        raise NoGradientError(
            f"The reward has no gradient at iteration {step}: it does not change with the image "
            "here (a constant or stepwise reward, or a target that is already reached)."
        )
    if regularization.requires_grad:
        pulls = torch.autograd.grad(regularization.sum(), leaves, allow_unused=True)
        gradients = [g if p is None else g + p for g, p in zip(gradients, pulls, strict=True)]
    for g in gradients:
        _check(g, step, "gradient of the noise")
    return gradients


def _pull_through(latent: Tensor, upper: Tensor, leaves: list[Tensor], step: int) -> list[Tensor]:
    """The lower half: `upper` = d(reward)/d(latent) pulled back to every leaf."""
    _check(upper, step, "gradient of the reward")
    # Unit size per image keeps half-precision models from under- or overflowing; undone in fp32.
    scale = upper.flatten(1).float().abs().amax(dim=1)
    if not scale.any():
        return [torch.zeros_like(leaf) for leaf in leaves]
    unit = upper.float() / _rows(scale.where(scale > 0, torch.ones_like(scale)), upper)
    lower = torch.autograd.grad(latent, leaves, unit.to(latent.dtype), allow_unused=True)
    return [
        torch.zeros_like(leaf) if g is None else g.to(leaf.dtype) * _rows(scale, leaf)
        for leaf, g in zip(leaves, lower, strict=True)
    ]


def _clip_per_image(gradients: Sequence[Tensor], bound: float) -> None:
    """Scale each image's gradient, over all its tensors together, to norm `bound` at most."""
    if bound <= 0:
        return
    squares = sum(g.flatten(1).float().square().sum(dim=1) for g in gradients)
    factor = (bound / squares.sqrt().clamp(min=bound)).to(gradients[0].dtype)
    for g in gradients:
        g.mul_(_rows(factor, g))


def _rows(values: Tensor, like: Tensor) -> Tensor:
    """(B,) -> (B,1,...) that broadcasts against `like`."""
    return values.to(like.device).reshape(-1, *[1] * (like.ndim - 1))


def _check(value: Tensor, step: int, name: str) -> None:
    if not torch.isfinite(value).all():
        raise NonFiniteError(f"The {name} is not finite (NaN or infinity) at iteration {step}.")

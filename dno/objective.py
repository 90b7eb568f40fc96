"""What is climbed: a reward on the image, weighted together with what keeps the noise Gaussian."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from torch import Tensor

from .noise import Noise
from .sharing import sharing


@runtime_checkable
class Reward(Protocol):
    """Higher is better. `differentiable` is declared, never guessed.

    A reward with `space = "latent"` scores the sample itself, (B,C,H,W) as the diffusion model
    makes it, before the VAE.
    """

    differentiable: bool

    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) sRGB in [0,1] -> (B,) scores; image i's score depends on image i alone."""


def of_latent(reward: Reward) -> bool:
    """Whether it scores the latent and not the image."""
    return getattr(reward, "space", "image") == "latent"


class Regularizer(Protocol):
    """Zero inside the typical set of the standard normal, negative outside; differentiable."""

    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,) scores, 0 or less, higher is more Gaussian."""


class Indicator(Protocol):
    """A read-out of the noise that is reported at every iteration and never climbed."""

    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,)."""


class TermError(RuntimeError):
    """A reward or regularizer raised; the message names it, `__cause__` is what it raised."""


@dataclass(frozen=True)
class Weighted:
    """A term of the objective: its weight and the function that scores it."""

    weight: float
    score: Reward | Regularizer


@dataclass(frozen=True)
class Objective:
    """`sum of weight x reward(image) + sum of weight x regularizer(noise)`, each term by name."""

    rewards: Mapping[str, Weighted]
    regularizers: Mapping[str, Weighted] = field(default_factory=dict)
    indicators: Mapping[str, Indicator] = field(default_factory=dict)

    def reward(
        self, image: Tensor, latent: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,3,H,W) -> the weighted sum (B,) and each term, unweighted, by name.

        latent: the sample (B,C,...) that the image was decoded from, for rewards that score it.
        """

        def seen(reward: Reward) -> Tensor:
            if not of_latent(reward):
                return image
            if latent is None:
                raise ValueError("it scores latents, and here is only a picture")
            return latent

        with sharing():
            return _weigh(self.rewards, seen, image.new_zeros(image.shape[0]), "reward")

    def regularization(self, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise -> the weighted sum (B,) and each term, unweighted, by name."""
        zero = noise.initial.new_zeros(noise.initial.shape[0])
        terms = self.regularizers if noise.leaves() else {}  # what does not move needs no keeping
        return _weigh(terms, lambda _: noise, zero, "regularizer")

    def read_outs(self, noise: Noise) -> dict[str, Tensor]:
        """Noise -> each indicator (B,), by name; none of noise that does not move."""
        return {name: read(noise) for name, read in self.indicators.items() if noise.leaves()}

    @property
    def differentiable(self) -> bool:
        """Whether every reward declares a gradient."""
        return all(term.score.differentiable for term in self.rewards.values())

    @property
    def sees_image(self) -> bool:
        """Whether any reward scores the decoded image."""
        return any(not of_latent(term.score) for term in self.rewards.values())

    def split(self) -> tuple[Objective, Objective]:
        """Its rewards with a gradient, and those without."""
        exact = {k: term for k, term in self.rewards.items() if term.score.differentiable}
        blind = {k: term for k, term in self.rewards.items() if k not in exact}
        return Objective(exact), Objective(blind)


def combine(*parts: tuple[float, Mapping[str, Weighted]]) -> dict[str, Weighted]:
    """Add weighted groups of terms into one; a name used twice gets a number."""
    combined: dict[str, Weighted] = {}
    for weight, terms in parts:
        for name, term in terms.items():
            unique, count = name, 1
            while unique in combined:
                count += 1
                unique = f"{name} {count}"
            combined[unique] = Weighted(weight * term.weight, term.score)
    return combined


def _weigh(
    terms: Mapping[str, Weighted],
    argument: Callable[[Reward | Regularizer], Tensor | Noise],
    zero: Tensor,
    kind: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """`argument(score)` is what a term is given."""
    total, scores = zero, {}
    for name, term in terms.items():
        try:
            score = term.score(argument(term.score))
        except Exception as error:
            raise TermError(f"The {kind} {name!r} failed: {error}") from error
        if score.shape != zero.shape:
            raise TermError(
                f"The {kind} {name!r} gave a tensor of shape {tuple(score.shape)} for "
                f"{zero.shape[0]} images; it must give one score per image."
            )
        scores[name] = score.to(total.device)  # a latent may be elsewhere than its picture
        total = total + term.weight * scores[name]
    return total, scores

"""What is climbed: a reward on the image, weighted together with what keeps the noise Gaussian."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar

from torch import Tensor

from .declared import Declared
from .noise import Noise
from .sharing import sharing


class Reward(Declared, ABC):
    """Higher is better. A subclass is a frozen dataclass that declares what it differs in.

    differentiable: whether its score has a gradient; without one the sampler estimates it.
    space:          what it scores: the decoded "image", or the "latent" (B,C,H,W) as the diffusion
                    model makes it, before the VAE.
    span:           from where to where its scores go, in words: "-1 to 0".
    """

    differentiable: bool = True
    space: Literal["image", "latent"] = "image"
    span: str = ""

    @abstractmethod
    def __call__(self, image: Tensor) -> Tensor:
        """(B,3,H,W) sRGB in [0,1] -> (B,) scores; image i's score depends on image i alone."""


def of_latent(reward: Reward) -> bool:
    """Whether it scores the latent. A plain callable that says `differentiable` sees the image."""
    return getattr(reward, "space", "image") == "latent"


class Modifier(Declared, ABC):
    """Makes a reward of a reward."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The new term's name, with {} for the old one's: "{}, clamped"."""

    @abstractmethod
    def __call__(self, reward: Reward) -> Reward:
        """Reward -> Reward"""


class Regularizer(Declared, ABC):
    """Zero inside the typical set of the standard normal, negative outside; differentiable.

    keeps:  what it holds where a Gaussian's would be, in words.
    source: where it is from.
    """

    keeps: str = ""
    source: str = ""

    @abstractmethod
    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,) scores, 0 or less, higher is more Gaussian."""

    @abstractmethod
    def indicator(self, noise: Noise) -> Tensor:
        """Noise -> (B,): a read-out for the report, which is never climbed."""


class Indicator(Protocol):
    """A read-out of the noise that is reported at every iteration and never climbed."""

    def __call__(self, noise: Noise) -> Tensor:
        """Noise -> (B,)."""


class TermError(RuntimeError):
    """A reward or regularizer raised; the message names it, `__cause__` is what it raised."""


F = TypeVar("F", bound=Reward | Regularizer)


@dataclass(frozen=True)
class Weighted(Generic[F]):
    """A term of the objective: its weight, and the reward or regularizer that it weighs."""

    weight: float
    function: F


@dataclass(frozen=True)
class Objective:
    """`sum of weight x reward(image) + sum of weight x regularizer(noise)`, each term by name."""

    rewards: Mapping[str, Weighted[Reward]]
    regularizers: Mapping[str, Weighted[Regularizer]] = field(default_factory=dict)
    indicators: Mapping[str, Indicator] = field(default_factory=dict)

    def reward(
        self, image: Tensor, latent: Tensor | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """(B,3,H,W) -> the weighted sum (B,) and each term, unweighted, by name.

        latent: the sample (B,C,...) that the image was decoded from, for rewards that score it.
        """

        def evaluate(reward: Reward) -> Tensor:
            if not of_latent(reward):
                return reward(image)
            if latent is None:
                raise ValueError("it scores latents, and here is only a picture")
            return reward(latent)

        with sharing():
            return _weigh(self.rewards, evaluate, image.new_zeros(image.shape[0]), "reward")

    def regularization(self, noise: Noise) -> tuple[Tensor, dict[str, Tensor]]:
        """Noise -> the weighted sum (B,) and each term, unweighted, by name."""
        zero = noise.initial.new_zeros(noise.initial.shape[0])
        terms = self.regularizers if noise.leaves() else {}  # what does not move needs no keeping
        return _weigh(terms, lambda each: each(noise), zero, "regularizer")

    def read_outs(self, noise: Noise) -> dict[str, Tensor]:
        """Noise -> each indicator (B,), by name; none of noise that does not move."""
        return {name: read(noise) for name, read in self.indicators.items() if noise.leaves()}

    @property
    def differentiable(self) -> bool:
        """Whether every reward declares a gradient."""
        return all(term.function.differentiable for term in self.rewards.values())

    @property
    def sees_image(self) -> bool:
        """Whether any reward scores the decoded image."""
        return any(not of_latent(term.function) for term in self.rewards.values())

    def split(self) -> tuple[Objective, Objective]:
        """Its rewards with a gradient, and those without."""
        exact = {k: term for k, term in self.rewards.items() if term.function.differentiable}
        blind = {k: term for k, term in self.rewards.items() if k not in exact}
        return Objective(exact), Objective(blind)


def combine(*parts: tuple[float, Mapping[str, Weighted[F]]]) -> dict[str, Weighted[F]]:
    """Add weighted groups of terms into one; a name used twice gets a number.

    >>> combine((2.0, {"dark": Weighted(1.0, Darkness())}))["dark"].weight
    2.0
    """
    combined: dict[str, Weighted[F]] = {}
    for weight, terms in parts:
        for name, term in terms.items():
            unique, count = name, 1
            while unique in combined:
                count += 1
                unique = f"{name} {count}"
            combined[unique] = Weighted(weight * term.weight, term.function)
    return combined


def _weigh(
    terms: Mapping[str, Weighted[F]],
    evaluate: Callable[[F], Tensor],
    zero: Tensor,
    kind: str,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The weighted sum, added to `zero` (B,), and what `evaluate` gave for each term."""
    total, values = zero, {}
    for name, term in terms.items():
        try:
            value = evaluate(term.function)
        except Exception as error:
            raise TermError(f"The {kind} {name!r} failed: {error}") from error
        if value.shape != zero.shape:
            raise TermError(
                f"The {kind} {name!r} gave a tensor of shape {tuple(value.shape)} for "
                f"{zero.shape[0]} images; it must give one score per image."
            )
        values[name] = value.to(total.device)  # a latent may be elsewhere than its picture
        total = total + term.weight * values[name]
    return total, values

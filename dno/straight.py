"""A gradient that leaves the sampling out: what the sample should become, the noise becomes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .gradient import Evaluated, Exact, Gradient, Problem
from .noise import Noise


@dataclass(frozen=True)
class StraightThrough:
    """d(reward)/d(noise) = d(reward)/d(sample), as if x0 = z - stop(z - x0) (SONIC, 2511.19985).

    For deterministic samplers, whose sample follows its noise: the network is evaluated only.

    of: the gradient of decoder and rewards.
    """

    of: Gradient = Exact()

    def evaluate(self, problem: Problem, noise: Noise, step: int, climb: bool) -> Evaluated:
        with torch.no_grad():
            latent = problem.sample(noise, step)
        upper = Problem(lambda given: given.initial * 1.0, problem.decode, problem.objective)
        evaluated = self.of.evaluate(upper, Noise(latent), step, climb)

        def gradients() -> list[Tensor]:
            (pulled,) = evaluated.gradients()
            return [pulled.to(leaf) for leaf in noise.leaves()]

        return Evaluated(latent, evaluated.image, evaluated.reward, evaluated.terms, gradients)

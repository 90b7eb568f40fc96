"""Gradients of rewards that have none: arXiv 2405.18881, section 5, and its zeroth-order baseline.

Only d(reward)/d(image) is missing; the Jacobian of sampling and decoder is known. It is estimated
from how the reward changes under small Gaussian perturbations xi of size mu:

    Hybrid-1   g = E[(r(x + mu xi) - r(x)) xi] / mu                     of the image x: cheap
    Hybrid-2   g = E[(r(M(z + mu xi)) - r(M(z))) (M(z + mu xi) - M(z))]   of the noise z: samples on
               the image manifold, one sampling each
    zeroth     g_z = E[(r(M(z + mu xi)) - r(M(z))) xi] / mu              of the noise, no Jacobian
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from .declared import Declared
from .fields import Choice, Range, Switch
from .gradient import Evaluated, Exact, Problem, by_image, detached, pull_back
from .noise import Noise
from .objective import Objective

METHODS = ("hybrid-2", "hybrid-1", "zeroth order")
SCALES = ("calibrated", "unit", "none")
USUAL = {"hybrid-1": 512}  # samples; 8 for the methods that sample each of them
DRAWING = ("cuda", "xpu", "mps")  # devices with random numbers of their own
Sample = tuple[Tensor, Tensor | None]  # a picture and its latent
Steps = Callable[[], Iterator[list[Tensor]]]  # of each perturbation: what was added to each leaf


@dataclass(frozen=True)
class Point:
    """Where a gradient is wanted: a noise and its iteration."""

    problem: Problem
    noise: Noise
    step: int

    @torch.no_grad()
    def samples(self, noise: Noise) -> Sample:
        """Pictures and latents of other noise, a multiple of this point's batch."""
        latent = self.problem.sample(noise, self.step)
        return self.problem.image(latent, self.step), latent


@dataclass(frozen=True)
class Estimated(Declared):
    """Estimates the gradient of the rewards that declare none; the others keep their exact one.

    "zeroth order" estimates all rewards and needs no differentiable model at all. The perturbations
    depend on the seed, the iteration and their number alone, never on how many run at once.
    """

    method: Annotated[
        str,
        Choice(
            METHODS,
            "hybrid-2 tries neighbouring noise, so on real pictures; hybrid-1 perturbs pixels "
            "and needs no extra sampling; zeroth order is the baseline without any gradient.",
        ),
    ] = "hybrid-2"
    mu: Annotated[float, Range(0.0001, 1.0, 0.001, "Size of the perturbations.")] = 0.1
    samples: Annotated[
        int,
        Range(
            0,
            4096,
            1,
            "Perturbed pictures per iteration: more are steadier and slower. 0: 8, or 512 with "
            "hybrid-1, whose pictures need no sampling.",
        ),
    ] = 0
    antithetic: Annotated[
        bool, Switch("Perturb in pairs of opposite direction, which cancels the curvature.")
    ] = True
    scale: Annotated[
        str,
        Choice(
            SCALES,
            "calibrated: as long as explains the seen changes best, so that weights keep their "
            "meaning; unit: length 1 as in the paper; none: the bare formula.",
        ),
    ] = "calibrated"
    seed: Annotated[int, Range(0, 2**32 - 1, 1, "Seed of the perturbations.")] = 0
    at_once: Annotated[
        int,
        Range(0, 4096, 1, "Perturbed pictures that are sampled together; 0: as memory allows."),
    ] = 0

    def evaluate(self, problem: Problem, noise: Noise, step: int, climb: bool) -> Evaluated:
        if self.method == "zeroth order":
            return self._zeroth(problem, noise, step)
        exact, blind = problem.objective.split()
        with torch.set_grad_enabled(climb):
            latent = problem.sample(noise, step)
            sample = latent.detach().requires_grad_(climb)
            image = problem.image(sample, step)
            exact_reward, terms = exact.reward(image, sample)
        with torch.no_grad():
            blind_reward, blind_terms = blind.reward(image.detach(), sample.detach())

        def gradients() -> list[Tensor]:
            point = Point(problem, noise, step)
            upper = self._image_gradient(point, blind, image.detach(), blind_reward)
            pulled = [(image, upper), (exact_reward.sum(), None)]
            pulled = [pair for pair in pulled if pair[0].requires_grad]
            ends, pulls = zip(*pulled, strict=True)
            (gradient,) = torch.autograd.grad(ends, sample, pulls)
            return pull_back(latent, gradient, noise.leaves(), step)

        every = {**detached(terms), **blind_terms}
        named = {name: every[name] for name in problem.objective.rewards}
        return Evaluated(
            latent.detach(), image.detach(), exact_reward.detach() + blind_reward, named, gradients
        )

    @torch.no_grad()
    def _zeroth(self, problem: Problem, noise: Noise, step: int) -> Evaluated:
        plain = Exact().evaluate(problem, noise, step, climb=False)

        @torch.no_grad()
        def gradients() -> list[Tensor]:
            point, leaves = Point(problem, noise, step), noise.leaves()
            changes = [
                self._change(problem.objective, samples, plain.reward)
                for samples in self._neighbours(point)
            ]
            slopes = torch.stack(changes) / self.mu
            return self._combine(slopes, lambda: self._directions(point, leaves))

        return replace(plain, gradients=gradients)

    def _image_gradient(
        self, point: Point, blind: Objective, image: Tensor, reward: Tensor
    ) -> Tensor:
        """The estimate of d(reward)/d(image), (B,3,H,W), of the rewards without a gradient."""
        if not blind.rewards:
            return torch.zeros_like(image)
        changes, kept = [], []
        for step, samples in self._perturbed(point, image):
            changes.append(self._change(blind, samples, reward))
            kept += [] if step is None else [step.cpu()]
        if self.method == "hybrid-1":
            slopes = torch.stack(changes) / self.mu
            return self._combine(slopes, lambda: self._directions(point, [image]))[0]
        return self._combine(torch.stack(changes), lambda: ([s.to(image)] for s in kept))[0]

    def _perturbed(self, point: Point, image: Tensor) -> Iterator[tuple[Tensor | None, list]]:
        """(step, samples) of each perturbation: how the picture changed; None if by what is drawn.

        What is drawn can be drawn again, and is not kept.
        """
        if self.method == "hybrid-1":
            for (xi,) in self._directions(point, [image]):
                signs = (1.0, -1.0) if self.antithetic else (1.0,)
                yield None, [((image + sign * self.mu * xi).clamp(0, 1), None) for sign in signs]
        else:
            for samples in self._neighbours(point):
                ahead, behind = samples[0][0], samples[1][0] if self.antithetic else image
                yield (ahead - behind) / len(samples), samples

    def _change(self, objective: Objective, samples: list[Sample], reward: Tensor) -> Tensor:
        """The reward's change (B,) for a step of mu: central if antithetic, else forward."""
        with torch.no_grad():
            rewards = [objective.reward(*sample)[0] for sample in samples]
        return (rewards[0] - rewards[1]) / 2 if self.antithetic else rewards[0] - reward

    def _combine(self, changes: Tensor, steps: Steps) -> list[Tensor]:
        """Mean of change x step over the samples, scaled per image. changes: (S,B).

        Steps are walked through once or twice, and one is held at a time.
        """
        gradients: list[Tensor] = []
        for change, step in zip(changes / len(changes), steps(), strict=True):
            gradients = gradients or [torch.zeros_like(part) for part in step]
            for gradient, part in zip(gradients, step, strict=True):
                gradient += by_image(change, part) * part
        if self.scale == "none":
            return gradients
        if self.scale == "unit":
            norm = sum(g.flatten(1).square().sum(1) for g in gradients).sqrt()
            factor = torch.where(norm > 0, 1 / norm.clamp(min=1e-30), torch.zeros_like(norm))
        else:  # least squares: changes = factor <gradient, steps>
            along = torch.stack([_inner(step, gradients) for step in steps()])
            changes = changes.to(along.device)  # a VAE on the processor has its rewards there
            power = along.square().sum(0)
            fit = (changes * along).sum(0) / power.clamp(min=1e-30)
            factor = torch.where(power > 0, fit, torch.zeros_like(fit))
        return [g * by_image(factor, g) for g in gradients]

    @property
    def _pairs(self) -> int:
        """How many directions: pairs if antithetic."""
        samples = self.samples or USUAL.get(self.method, 8)
        return max(1, samples // 2) if self.antithetic else samples

    def _directions(self, point: Point, like: list[Tensor]) -> Iterator[list[Tensor]]:
        """All that are drawn at this point, one after the other."""
        return (self._draw(point.step, index, like) for index in range(self._pairs))

    def _neighbours(self, point: Point) -> Iterator[list[Sample]]:
        """The samples of each perturbation of the noise, sampled `at_once` at a time."""
        leaves = point.noise.leaves()
        signs = (1.0, -1.0) if self.antithetic else (1.0,)
        together = max(1, (self.at_once or point.problem.at_once()) // len(signs))
        for first in range(0, self._pairs, together):
            indices = range(first, min(first + together, self._pairs))
            directions = [self._draw(point.step, index, leaves) for index in indices]
            moves = [(xi, sign) for xi in directions for sign in signs]
            moved = point.samples(_moved(point.noise, moves, self.mu))
            samples = list(zip(*(part.chunk(len(moves)) for part in moved), strict=True))
            for start in range(0, len(moves), len(signs)):
                yield samples[start : start + len(signs)]

    def _draw(self, step: int, index: int, like: list[Tensor]) -> list[Tensor]:
        """Drawn where the tensors are: a card has other numbers than the CPU, always its own."""
        device = like[0].device if like[0].device.type in DRAWING else torch.device("cpu")
        generator = torch.Generator(device)
        generator.manual_seed((self.seed * 100_003 + step) * 4099 + index)
        return [torch.randn(t.shape, generator=generator, device=device).to(t) for t in like]


def _moved(noise: Noise, moves: list[tuple[list[Tensor], float]], mu: float) -> Noise:
    """The noise of all moves in one batch, move by move; what is not optimised stays."""
    parts: list[Tensor] = []
    position = 0
    for tensor in noise.tensors():
        rows = [tensor.detach()] * len(moves)
        if tensor.requires_grad:
            rows = [tensor.detach() + sign * mu * xi[position] for xi, sign in moves]
            position += 1
        parts.append(torch.cat(rows))
    return Noise(parts[0], parts[1:], noise.scope)


def _inner(first: list[Tensor], second: list[Tensor]) -> Tensor:
    """The inner product (B,) of two lists of tensors (B,...)."""
    return sum((a * b).flatten(1).sum(1) for a, b in zip(first, second, strict=True))

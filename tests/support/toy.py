"""A diffusion whose every step is a formula: data N(0, 1) per number, euler ancestral or plain."""

from __future__ import annotations

import torch

from ComfyUI_DNO.dno.gradient import Problem
from ComfyUI_DNO.dno.method import Task
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.dno.objective import Objective, Weighted

SIGMAS = torch.tensor([5.0, 2.5, 1.2, 0.5, 0.0])
SHAPE = (3, 8, 8)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Toy:
    """`render(noise, tape=, seen=)` of a sampler with this eta; counts what it is asked for.

    smooth: whether the denoiser mixes neighbours, so that it is not the same everywhere.
    """

    def __init__(self, eta: float = 1.0, sigmas: torch.Tensor = SIGMAS):
        self.eta, self.sigmas = eta, sigmas
        self.evaluations = self.with_gradient = self.decodings = 0

    def denoise(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        self.evaluations += 1
        self.with_gradient += torch.is_grad_enabled() and x.requires_grad
        near = (x + torch.roll(x, 1, -1)) / 2
        return torch.tanh(near / (1 + sigma))

    def render(self, noise: Noise, *, tape=None, seen=None) -> torch.Tensor:
        tape = tape or noise.tape()
        x, generator = noise.initial * self.sigmas[0], torch.Generator().manual_seed(77)
        for sigma, following in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            denoised = self.denoise(x, sigma)
            if seen is not None:
                seen(denoised, sigma.expand(len(x)))
            up = self.eta * (following**2 * (1 - following**2 / sigma**2)).sqrt()
            down = (following**2 - up**2).sqrt()
            x = denoised + (x - denoised) / sigma * down
            if up > 0:
                x = x + up * tape.draw(lambda at=x: torch.randn(at.shape, generator=generator))
        return x

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        self.decodings += 1
        return torch.sigmoid(latent)

    def task(self, reward, batch: int = 2, scope: str = "all", seed: int = 0, **more) -> Task:
        objective = Objective({"reward": Weighted(1.0, reward)}, more.pop("regularizers", {}))
        noise = Noise(normal(batch, *SHAPE, seed=seed), scope=scope)
        return Task(Problem(self.render, self.decode, objective), noise, **more)


class Ramp:
    """Bright to the left, dark to the right."""

    differentiable = True

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return (image * torch.linspace(1, -1, image.shape[-1])).mean((1, 2, 3)) * 10


class Blind(Ramp):
    """The same without a gradient."""

    differentiable = False

    @torch.no_grad()
    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        return super().__call__(image)

"""The optimised noise as objects that SamplerCustomAdvanced understands: NOISE and SAMPLER."""

from __future__ import annotations

import comfy.samplers
import torch
from torch import Tensor

from ....dno.noise import Noise, Tape
from ..ordinary import ordinary
from .render import Origin, Sampling
from .state import Generators


class FixedNoise:
    """A NOISE that gives a known tensor. The seed still feeds what the sampler draws by itself."""

    def __init__(self, initial: Tensor, seed: int):
        self._initial, self.seed = initial.cpu(), seed

    @property
    def initial(self) -> Tensor:
        return self._initial

    def generate_noise(self, input_latent: dict) -> Tensor:
        shape = tuple(input_latent["samples"].shape)
        if shape[:1] + shape[-2:] != tuple(self._initial.shape[:1] + self._initial.shape[-2:]):
            raise ValueError(
                f"The optimised noise has shape {tuple(self._initial.shape)}, the latent {shape}: "
                "use the latent size and batch of the DNO Sampler."
            )
        return self._initial


class Replay(comfy.samplers.Sampler):
    """The host's sampler with its injected noise played back from an optimised one.

    generators: as they stood for the optimised one, for what is drawn inside the network.
    """

    def __init__(self, sampler: comfy.samplers.Sampler, noise: Noise, generators: Generators):
        self.sampler, self._noise, self._generators = sampler, noise, generators

    def sample(
        self,
        model_wrap,
        sigmas,
        extra_args,
        callback,
        noise,
        latent_image=None,
        denoise_mask=None,
        disable_pbar=False,
    ):
        tensors = [ordinary(t) for t in (sigmas, noise, latent_image, denoise_mask)]
        draws = [draw.to(noise) for draw in self._noise.injected]
        with torch.inference_mode(False), torch.no_grad():
            sampling = Sampling(self.sampler, model_wrap, extra_args, tensors)
            user = sampling.origin
            try:
                return sampling.from_origin(Origin(user.seed, self._generators)).render(
                    Noise(tensors[1]), tape=ReplayTape(draws, noise.shape), callback=callback
                )
            finally:
                user.generators.restore()


class ReplayTape(Tape):
    """Plays draws back; refuses a sampler, size or number of steps other than the recorded."""

    def __init__(self, draws: list[Tensor], shape: torch.Size):
        self._draws, self._shape = iter(draws), shape

    def draw(self, host) -> Tensor:
        draw = next(self._draws, None)
        if draw is None or draw.shape != self._shape:
            raise ValueError(
                "The replayed noise was optimised for another sampling: use the same sampler, "
                "number of steps, latent size and batch as in the DNO Sampler."
            )
        return draw

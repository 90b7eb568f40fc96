"""The optimised noise as objects that SamplerCustomAdvanced understands: NOISE and SAMPLER."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import comfy.samplers
import torch
from torch import Tensor

from ....dno.noise import Noise, Tape
from ..ordinary import ordinary
from .render import Origin, Sampling
from .state import Generators

OTHER_SAMPLING = (
    "The replayed noise was optimised for another sampling: use the same sampler, number of steps, "
    "latent size and batch as in the DNO Sampler."
)


@dataclass(frozen=True)
class Draws:
    """What a run may go on from beside its initial noise.

    injected:   what a sampler drew by itself, (B,C,...) each, in order.
    generators: as they stood for it, if known; else as the seed leaves them.
    seed:       of what the method draws by itself, if not the sampling's.
    """

    injected: Sequence[Tensor] = ()
    generators: Generators | None = None
    seed: int | None = None

    @classmethod
    def of(cls, given, seed: int) -> Draws:
        """Of a NOISE of any kind, or None; `seed` is the user's."""
        return cls() if given is None else replace(getattr(given, "draws", cls()), seed=seed)


@dataclass(frozen=True)
class Source:
    """What turns a moment of a history into the host's.

    origin: where its run drew from; process_out: the model's latent (B,C,...) -> that of a LATENT.
    """

    origin: Origin
    process_out: Callable[[Tensor], Tensor]


class FixedNoise:
    """A NOISE that gives a known tensor. The seed still feeds what the sampler draws by itself.

    draws: what a DNO Sampler goes on from; ComfyUI's samplers draw their own.
    """

    def __init__(self, initial: Tensor, seed: int, draws: Draws | None = None):
        self._initial, self.seed, self.draws = initial.cpu(), seed, draws or Draws()

    @classmethod
    def of(cls, noise: Noise, origin: Origin) -> FixedNoise:
        """All of an optimised noise, and where its run drew from."""
        return cls(noise.initial, origin.seed or 0, Draws(noise.injected, origin.generators))

    @property
    def initial(self) -> Tensor:
        return self._initial

    def generate_noise(self, input_latent: dict) -> Tensor:
        shape = tuple(input_latent["samples"].shape)
        if shape[:1] + shape[-2:] != tuple(self._initial.shape[:1] + self._initial.shape[-2:]):
            raise ValueError(
                f"The optimised noise has shape {tuple(self._initial.shape)}, the latent {shape}: "
                "use the latent size and batch of the DNO Sampler that it is from."
            )
        return self._initial


class Replay(comfy.samplers.Sampler):
    """The host's sampler with its injected noise played back from an optimised one.

    generators: as they stood for the optimised one, for what is drawn inside the network.
    """

    def __init__(self, sampler: comfy.samplers.Sampler, noise: Noise, generators: Generators):
        self.sampler, self.draws = sampler, Draws(noise.injected, generators)

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
        draws = [draw.to(noise) for draw in self.draws.injected]
        with torch.inference_mode(False), torch.no_grad():
            sampling = Sampling(self.sampler, model_wrap, extra_args, tensors)
            user = sampling.origin
            try:
                return sampling.from_origin(Origin(user.seed, self.draws.generators)).render(
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
            raise ValueError(OTHER_SAMPLING)
        return draw

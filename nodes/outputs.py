"""What a run hands on beside its latent, the same from the sampler and from its custom form."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..dno.history import History
from .host.sampling.climb import Climbed
from .host.sampling.replay import FixedNoise, Replay
from .schema import HistorySocket, to_bhwc


def of_a_run() -> list[io.Output]:
    return [
        HistorySocket.Output(
            display_name="history", tooltip="For History Plot, Frames and Choose Iteration."
        ),
        io.Noise.Output(
            display_name="noise",
            tooltip="The optimised noise, for SamplerCustomAdvanced or to go on from.",
        ),
        io.Sampler.Output(
            display_name="sampler",
            tooltip=(
                "Replays the optimised noise of each step; with noise and sigmas, in "
                "SamplerCustomAdvanced, it gives the same picture."
            ),
        ),
    ]


def before() -> io.Output:
    """Last of all, because saved workflows count the outputs."""
    return io.Image.Output(
        display_name="before",
        tooltip="The first picture of each image, as it was scored, to compare with.",
    )


def handed(climbed: Climbed, sampler) -> tuple[History, FixedNoise, Replay]:
    """The values of `of_a_run`."""
    noise, origin = climbed.history.best.noise, climbed.origin
    return climbed.history, FixedNoise.of(noise, origin), Replay(sampler, noise, origin.generators)


def first_picture(climbed: Climbed) -> Tensor:
    """The value of `before`: (B,H,W,3) in [0,1]."""
    return to_bhwc(climbed.history.first)

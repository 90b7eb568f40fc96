"""A run that goes on from the draws of an earlier one."""

from __future__ import annotations

from torch import Tensor

from ....dno.noise import Noise, Tape
from .render import Origin, Sampling
from .replay import OTHER_SAMPLING, Draws

OTHER_DRAWS = (
    "The noise input brought {} draws of its sampler and this sampling takes {}: iteration 0 is "
    "another picture than the one that it is from."
)


class Given:
    """The draws of an earlier run in this sampling."""

    def __init__(self, draws: Draws, sampling: Sampling):
        like, self._draws = sampling.noise, draws
        if any(draw.shape != like.shape for draw in draws.injected):
            raise ValueError(OTHER_SAMPLING)
        self._injected = [draw.to(like) for draw in draws.injected]
        self._unseen = bool(draws.injected)

    def noise(self, initial: Tensor, scope: str) -> Noise:
        """The initial noise (B,C,...) with these draws."""
        return Noise(initial, self._injected, scope)

    def begun(self, sampling: Sampling) -> Sampling:
        """The same sampling, what it draws beside these coming from where it came from then."""
        if self._draws.generators is None:
            return sampling
        return sampling.from_origin(Origin(sampling.origin.seed, self._draws.generators))

    def seed(self, sampling: Sampling) -> int:
        """Of what the method draws by itself."""
        own = self._draws.seed
        return (sampling.origin.seed if own is None else own) or 0

    def rendered(self, noise: Noise, tape: Tape, sampling: Sampling) -> None:
        """The first sampling shows how many draws this sampler takes: others go, and it is told."""
        if self._unseen:
            self._unseen, held = False, len(self._injected)
            if tape.used != held:
                sampling.warnings.append(OTHER_DRAWS.format(held, tape.used))
            del noise.injected[tape.used :]

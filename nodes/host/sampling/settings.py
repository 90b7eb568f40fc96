"""How the noise climbs, as the host's nodes have set it."""

from __future__ import annotations

from dataclasses import dataclass, field

from ....dno.estimate import Estimated
from ....dno.method import Ascent, Method
from ....dno.optimizers import Adam, Optimizer
from ....dno.parts import Part, limited
from ....dno.stopping import StoppingRule


@dataclass(frozen=True)
class Settings:
    """How the noise climbs, from the best of `best_of` seeds.

    method: what is done; without one, gradient ascent with the four settings above it and `clip`.
    part: what of the noise may move. carried: which steps of the network carry the gradient,
    "all", "first" or "last N". strict: refuse an inexact gradient. memory: one of needed.MEMORY.
    directions: what steering decodes with, one of directions.CHOICES; or `directions_vae`, if set.
    note: what the user is told about all this. keep_on_cancel: whether Cancel keeps the best.
    """

    iterations: int = 50
    best_of: int = 1
    learning_rate: float = 0.01
    clip: float = 1.0
    scope: str = "all"
    optimizer: Optimizer = field(default_factory=Adam)
    gradient: Estimated | None = None
    stopping: tuple[StoppingRule, ...] = ()
    memory: str = "automatic"
    method: Method | None = None
    part: Part = Part()
    carried: str = "all"
    strict: bool = False
    directions: str = "automatic"
    directions_vae: object = None
    note: str = ""
    keep_on_cancel: bool = False

    @property
    def way(self) -> Method:
        ascent = Ascent(self.optimizer, self.learning_rate, self.iterations, self.clip)
        return limited(self.method or ascent, self.part)

    @property
    def differentiates(self) -> bool:
        """Whether the network's gradient is needed."""
        blind = isinstance(self.gradient, Estimated) and self.gradient.method == "zeroth order"
        return self.way.differentiates and not (blind and isinstance(self.way, Ascent))

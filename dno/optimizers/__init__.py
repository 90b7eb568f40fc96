"""Named optimizers, one a file: a frozen dataclass that `start` binds to the noise."""

from .adam import Adam
from .base import Gradients, Optimizer, Step
from .langevin import Langevin
from .lbfgs import LBFGS
from .projected import Projected
from .rotation import Rotation
from .sgd import SGD
from .spectral import Spectral

# Those that are nodes; the others are parts of presets.
OPTIMIZERS: tuple[type[Optimizer], ...] = (Adam, SGD, Langevin, Rotation, LBFGS)

__all__ = [
    "LBFGS",
    "OPTIMIZERS",
    "SGD",
    "Adam",
    "Gradients",
    "Langevin",
    "Optimizer",
    "Projected",
    "Rotation",
    "Spectral",
    "Step",
]

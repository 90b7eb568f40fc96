from ..method import Ascent
from ..optimizers import SGD, Projected
from ..projections import Clipped, Sphere
from .base import Preset

DOODL = Preset(
    "DOODL",
    "arXiv 2303.13703 and its code: momentum 0.9, each number of the gradient clipped to 0.001, "
    "noise of 0.0001 added, length restored; 50 iterations. The gradient's scale, the code's "
    "grad_scale, depends on the reward: 1 here. The exact inversion (EDICT) is not needed.",
    Ascent(
        Projected(SGD(0.9, nesterov=False), gradient=Clipped(1.0, 0.001), noise=Sphere(0.0001)),
        learning_rate=1.0,
        iterations=50,
        clip=0.0,
    ),
    scope="initial",
    sampling="50 steps of a deterministic sampler (ddim), cfg 7.5",
)

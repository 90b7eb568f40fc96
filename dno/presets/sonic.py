from ..method import Ascent
from ..optimizers import Adam, Spectral
from ..straight import StraightThrough
from .base import Preset

SONIC = Preset(
    "SONIC",
    "arXiv 2511.19985 and its code: straight through, Adam 3.0 on the Fourier coefficients of the "
    "initial noise (1024 pixels), 20 iterations.",
    Ascent(
        Spectral(Adam()),
        learning_rate=3.0,
        iterations=20,
        clip=0.0,
        gradient=StraightThrough(),
    ),
    scope="initial",
    sampling="20 steps of a deterministic sampler (euler), cfg 2",
)

from ..method import Ascent
from ..optimizers import Langevin
from .base import Preset

ORIGEN = Preset(
    "ORIGEN",
    "arXiv 2503.22194: Langevin ascent on the initial noise of a one-step model; its adaptive time "
    "is left out, gamma 0.002, rate 1, clip 1 and 50 iterations are this pack's.",
    Ascent(Langevin(gamma=0.002), learning_rate=1.0, iterations=50, clip=1.0),
    scope="initial",
    sampling="a one-step model, 1 step, cfg 1",
)

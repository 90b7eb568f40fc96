from ..method import Ascent
from ..optimizers import LBFGS
from .base import Preset

D_FLOW = Preset(
    "D-Flow",
    "arXiv 2402.14017: L-BFGS with a strong Wolfe line search on the initial noise, no "
    "regularizer; 20 evaluations, each an iteration here, and the memory of 10 are this pack's.",
    Ascent(LBFGS(), learning_rate=1.0, iterations=20, clip=0.0),
    scope="initial",
    sampling="a deterministic sampler (euler, midpoint rule in the paper) of a flow model",
)

from ..method import Ascent
from ..optimizers import Adam
from .base import Preset

SDO = Preset(
    "SDO",
    "arXiv 2505.07477 and its code: the gradient passes one evaluation of the network, the first, "
    "and the sampler's own arithmetic; Adam 0.01 with betas 0.9 and 0.9, 100 iterations.",
    Ascent(Adam(0.9, 0.9), learning_rate=0.01, iterations=100, clip=0.0),
    scope="initial",
    carried="first",
    sampling="40 of 50 steps of a deterministic sampler (ddim), from a picture that was inverted",
)

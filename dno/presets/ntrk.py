import math

from ..projections import Ranked, Unchanged
from ..steer import Pass, Steer
from .base import Preset

RHO = 0.03

NTRK = Preset(
    "NTRK-like one pass",
    "arXiv 2606.18066: each injected draw becomes sqrt(rho) W(gradient) + sqrt(1 - rho) z, W makes "
    "its numbers Gaussian by rank. rho 0.03 is this pack's, and W gives them a Gaussian's order "
    "statistics where the paper clips to those.",
    Steer(
        (Pass(math.degrees(math.asin(math.sqrt(RHO))), "seed"),),
        whiten=Ranked(),
        project=Unchanged(),
    ),
    sampling="25 steps of an ancestral or SDE sampler",
)

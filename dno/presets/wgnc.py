from ..block_norms import BlockNorms
from ..method import Ascent
from ..optimizers import Adam, Projected
from .base import Preset

WGNC = Preset(
    "WGNC",
    "arXiv 2602.08646: the gradient projected to block norms (B 16), Adam, the noise projected; 60 "
    "iterations. The rate of 0.01 is this pack's.",
    Ascent(
        Projected(Adam(), gradient=BlockNorms(16), noise=BlockNorms(16)),
        learning_rate=0.01,
        iterations=60,
        clip=0.0,
    ),
    scope="initial",
    sampling="a one-step model (FLUX-schnell), 1 step, cfg 1",
)

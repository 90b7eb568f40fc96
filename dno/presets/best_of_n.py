from ..search import BestOf
from .base import Preset

BEST_OF_N = Preset(
    "best of N",
    "The baseline: 16 draws of all the noise, the best by the reward.",
    BestOf(16),
)

from ..method import Ascent
from ..optimizers import Adam
from .base import Penalty, Preset

DNO_PAPER = Preset(
    "DNO paper",
    "arXiv 2405.18881, algorithm 1 and its code: Adam 0.01, gradient clipped to norm 1, gamma 1, "
    "k 4, 100 permutations, 50 iterations.",
    Ascent(Adam(), learning_rate=0.01, iterations=50, clip=1.0),
    penalties=(Penalty("Probability", 1.0, {"form": "paper", "k": 4, "permutations": 100}),),
    sampling="50 steps of euler_ancestral (DDIM with eta 1), cfg 5",
)

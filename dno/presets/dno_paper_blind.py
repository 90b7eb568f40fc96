from ..estimate import Estimated
from ..method import Ascent
from ..optimizers import Adam
from .base import Penalty, Preset

DNO_PAPER_BLIND = Preset(
    "DNO paper without gradient",
    "arXiv 2405.18881, section 5: Hybrid-2 of unit length, otherwise as the paper; 16 perturbed "
    "pictures an iteration and mu 0.1 are this pack's.",
    Ascent(
        Adam(),
        learning_rate=0.01,
        iterations=50,
        clip=1.0,
        gradient=Estimated("hybrid-2", mu=0.1, samples=16, antithetic=False, scale="unit"),
    ),
    penalties=(Penalty("Probability", 1.0, {"form": "paper", "k": 4, "permutations": 100}),),
    sampling="50 steps of euler_ancestral (DDIM with eta 1), cfg 5",
)

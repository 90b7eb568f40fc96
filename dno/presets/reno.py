from ..method import Ascent
from ..optimizers import SGD
from .base import Penalty, Preset

RENO = Preset(
    "ReNO",
    "arXiv 2406.04312: Nesterov momentum 0.9, rate 5, clip 0.1, 50 iterations, Norm 0.01.",
    Ascent(SGD(momentum=0.9, nesterov=True), learning_rate=5.0, iterations=50, clip=0.1),
    scope="initial",
    penalties=(Penalty("Norm", 0.01),),
    sampling="a one-step model (SD-Turbo, SDXL-Turbo), 1 step, cfg 1",
)

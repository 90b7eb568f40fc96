from ..method import Ascent, Then
from ..optimizers import Rotation
from .base import Preset
from .fast import FAST

THOROUGH = Preset(
    "thorough",
    "This pack's: fast, then 9 exact turns of 3 degrees with backtracking from each image's best.",
    Then(FAST.method, Ascent(Rotation(angle=3.0), iterations=9, clip=0.0)),
    sampling="10 steps of an ancestral or SDE sampler",
)

from ..steer import FAST as PASSES
from ..steer import ONE_PASS as SINGLE
from ..steer import Pass, Steer
from .base import Preset

ONE_PASS = Preset(
    "one pass",
    "This pack's: one sampling whose draws are turned by 10 degrees.",
    Steer(SINGLE),
    sampling="an ancestral or SDE sampler",
)
FAST = Preset(
    "fast",
    "This pack's Fast-60: a plain sampling, three rough passes of 14 degrees (the seed's draws, "
    "then two fresh ones), passes of 10 and 8 degrees from each image's best.",
    Steer(PASSES),
    sampling="10 steps of an ancestral or SDE sampler",
)
FAST_50 = Preset(
    "fast, five samplings",
    "This pack's Fast-50: a plain sampling, then passes of 12, 8, 6 and 4 degrees from the best.",
    Steer((Pass(12), Pass(8), Pass(6), Pass(4))),
    sampling="10 steps of an ancestral or SDE sampler",
)

from ..search import TrustRegions
from .base import Preset

TRS = Preset(
    "TRS",
    "arXiv 2603.14504: 15 trust regions, lengths times 1.5 after 3 successes and over 1.5 after 3 "
    "failures, a fifth of the budget drawn anew. A budget of 60 samplings, the share and the first "
    "length of 0.5 are this pack's.",
    TrustRegions(budget=60),
    sampling="a deterministic sampler (eta 0)",
)

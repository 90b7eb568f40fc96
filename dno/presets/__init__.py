"""Published ways to better noise, one a file, with the numbers of their papers or code."""

from .base import Penalty, Preset
from .best_of_n import BEST_OF_N
from .d_flow import D_FLOW
from .dno_paper import DNO_PAPER
from .dno_paper_blind import DNO_PAPER_BLIND
from .doodl import DOODL
from .fast import FAST, FAST_50, ONE_PASS
from .ntrk import NTRK
from .origen import ORIGEN
from .reno import RENO
from .sdo import SDO
from .sonic import SONIC
from .thorough import THOROUGH
from .trs import TRS
from .wgnc import WGNC

PRESETS: dict[str, Preset] = {
    preset.title: preset
    for preset in (
        *(ONE_PASS, FAST, FAST_50, THOROUGH, DNO_PAPER, DNO_PAPER_BLIND, RENO, D_FLOW, DOODL),
        *(ORIGEN, SDO, SONIC, WGNC, NTRK, TRS, BEST_OF_N),
    )
}

__all__ = ["PRESETS", "Penalty", "Preset"]

"""Rewards: one per file, image (B,3,H,W) sRGB in [0,1] -> scores (B,), higher is better.

To add one, write its file and name it here; see README.md beside this file.
"""

from .brightness import Brightness
from .colour import Colour
from .contrast import Contrast
from .darkness import Darkness

REWARDS = (Brightness, Darkness, Contrast, Colour)

__all__ = ["REWARDS", *(reward.__name__ for reward in REWARDS)]

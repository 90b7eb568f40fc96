"""Regularizers: one per file, Noise -> scores (B,), 0 in the typical set of the normal, else less.

Each also has `indicator(noise) -> (B,)`, a read-out for the report; see README.md beside this file.
"""

from .norm import Norm
from .probability import Probability
from .spectrum import Spectrum

REGULARIZERS = (Probability, Spectrum, Norm)

__all__ = ["REGULARIZERS", *(regularizer.__name__ for regularizer in REGULARIZERS)]

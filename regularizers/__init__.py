"""Regularizers: one per file, Noise -> scores (B,), 0 in the typical set of the normal, else less.

Each also has `indicator(noise) -> (B,)`, a read-out for the report; see README.md beside this file.
"""

from .probability import Probability
from .spectrum import Spectrum

REGULARIZERS = (Probability, Spectrum)

__all__ = ["REGULARIZERS", *(regularizer.__name__ for regularizer in REGULARIZERS)]

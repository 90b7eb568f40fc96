"""A node for every regularizer of the pack."""

from ..regularizers import REGULARIZERS
from .bridge import regularizer_node

NODES = [regularizer_node(regularizer) for regularizer in REGULARIZERS]

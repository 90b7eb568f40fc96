"""A node for every reward of the pack."""

from ..rewards import REWARDS
from .bridge import reward_node

NODES = [reward_node(reward) for reward in REWARDS]

"""A node for every reward of the pack, and for everything that makes a reward of a reward."""

from ..rewards import MODIFIERS, REWARDS
from .bridge import modifier_node, reward_node

NODES = [
    *(reward_node(reward) for reward in REWARDS),
    *(modifier_node(modifier) for modifier in MODIFIERS),
]

"""How much of the network's evaluations is kept for backward, from what they were seen to keep.

One evaluation costs F, its backward another F. What is not kept is computed again:
recorded 2 F, whole calls and blocks that keep their inputs 3 F, blocks within whole calls 4 F.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

WORKSPACE = 1.3  # what a backward needs beside what was saved for it: the gradients on their way


class Level(enum.IntEnum):
    """Fastest first."""

    RECORDED = 0
    CALL = 1
    KEPT = 2
    NESTED = 3
    SPLIT = 4


WORDS = {
    Level.RECORDED: "recorded",
    Level.CALL: "computed again",
    Level.KEPT: "computed again by blocks",
    Level.NESTED: "computed again by blocks, twice",
    Level.SPLIT: "computed again by blocks, one prompt after the other",
}
LOWERED = "DNO ran out of memory and goes on with less: %s."
NOT_BY_BLOCK = (
    "DNO: this network does not repeat itself block by block (off by %.1g): whole calls are "
    "computed again instead, which takes more memory."
)
NOT_APART = (
    "DNO: something in this graph mixes the prompts (off by %.1g): they are computed again "
    "together, which takes more memory."
)


def said(used: Mapping[Level, int]) -> str:
    """What is done with the evaluations of a sampling, so many at each level, for the user."""
    total = sum(used.values())
    if len(used) == 1:
        return f"steps {WORDS[next(iter(used))]}"
    parts = (f"{count} {WORDS[level]}" for level, count in sorted(used.items()))
    return f"of {total} steps {', '.join(parts)}" if total else ""


@dataclass(frozen=True)
class Sizes:
    """Bytes of one evaluation: of its whole record, of its blocks' inputs, of one block's record.

    parts: prompts that can be pulled one after the other.
    """

    record: int
    inputs: int
    block: int
    parts: int

    def peak(self, level: Level) -> int:
        """At the backward of one evaluation."""
        nested = self.inputs + int(WORKSPACE * self.block)
        return {
            Level.RECORDED: self.record,
            Level.CALL: int(WORKSPACE * self.record),
            Level.KEPT: nested,
            Level.NESTED: nested,
            Level.SPLIT: nested // max(self.parts, 1),
        }[level]


@dataclass(frozen=True)
class Plan:
    """The last `count` evaluations of a sampling at a fast level, those before at a slow one.

    They are pulled first, and leave their room to the others.
    """

    fast: Level
    slow: Level
    count: int


def plan(sizes: Sizes, room: int, reserved: int, fastest: Level) -> Plan:
    """The fastest plan within `room` bytes, of which `reserved` are taken between the two halves.

    reserved: what decoding and scoring need while the records of a sampling wait.
    """
    for fast, slow, each in (
        (Level.RECORDED, Level.CALL, sizes.record),
        (Level.KEPT, Level.NESTED, sizes.inputs),
    ):
        if slow < fastest or sizes.peak(slow) > room:
            continue
        after = room - (sizes.peak(slow) - each if fast is Level.KEPT else 0)
        count = max(0, min(room - reserved, after) // max(each, 1))
        return Plan(fast, slow, count if fast >= fastest else 0)
    return Plan(Level.SPLIT, Level.SPLIT, 0)

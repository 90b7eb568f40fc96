"""A shuffled order of any length that takes no memory: every index is computed by itself."""

from __future__ import annotations

MASK = 2**64 - 1


class Shuffle:
    """order[index] for index in range(length), each number once.

    A Feistel network on the smallest even number of bits that holds the length (Luby and Rackoff,
    1988); numbers beyond the length are sent through it again until they are within it.
    """

    ROUNDS = 6

    def __init__(self, length: int, seed: int = 0):
        self.length = length
        self._half = max(1, (max(length - 1, 1).bit_length() + 1) // 2)
        self._low = (1 << self._half) - 1
        self._keys = [_mixed(seed * self.ROUNDS + turn + 1) for turn in range(self.ROUNDS)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self.length:
            raise IndexError(index)
        while True:
            index = self._once(index)
            if index < self.length:
                return index

    def _once(self, number: int) -> int:
        left, right = number >> self._half, number & self._low
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._low)
        return left << self._half | right


def _mixed(value: int) -> int:
    """The finaliser of SplitMix64."""
    value = (value + 0x9E3779B97F4A7C15) & MASK
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 & MASK
    value = (value ^ value >> 27) * 0x94D049BB133111EB & MASK
    return value ^ value >> 31

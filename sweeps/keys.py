"""The hashes of rows that are done or given out: millions of them in little memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


class Keys:
    """Hashes that are taken: 32 bytes each in a sorted array, the last ones in a set beside it."""

    RECENT = 50_000

    def __init__(self, keys: np.ndarray):
        self._keys = np.unique(keys)
        self._recent: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._keys) + len(self._recent)

    def new(self, keys: list[str]) -> list[bool]:
        """Which of these are not taken yet, each once; from now on they are."""
        given, fresh = np.array(keys, "S32"), []
        for key, known in zip(given.tolist(), self._known(given).tolist(), strict=True):
            fresh.append(not known and key not in self._recent)
            if fresh[-1]:
                self._recent.add(key)
        if len(self._recent) > self.RECENT:
            recent = np.array(list(self._recent), "S32")
            self._keys = np.sort(np.concatenate([self._keys, recent]))
            self._recent.clear()
        return fresh

    def _known(self, given: np.ndarray) -> np.ndarray:
        if not len(self._keys):
            return np.zeros(len(given), bool)
        indices = np.searchsorted(self._keys, given)
        return self._keys[np.minimum(indices, len(self._keys) - 1)] == given


def array(column: pa.ChunkedArray) -> np.ndarray:
    """The column's hashes, without a Python string for each."""
    hashes = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], pa.string())
    _, offsets, data = hashes.buffers()
    ends = np.frombuffer(offsets or b"\0" * 4, np.int32, len(hashes) + 1, 4 * hashes.offset)
    if len(hashes) == 0 or (np.diff(ends) != 32).any():
        return np.array(hashes.to_pylist(), "S32")
    return np.frombuffer(data, "S32", len(hashes), ends[0])

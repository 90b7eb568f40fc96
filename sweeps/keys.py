"""The hashes of rows that are done or given out: millions of them in little memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


class Keys:
    """Hashes that are taken, 32 bytes each."""

    def __init__(self, keys: np.ndarray):
        self._keys = np.unique(keys)

    def __len__(self) -> int:
        return len(self._keys)

    def new(self, keys: list[str]) -> list[bool]:
        """Which of these are not taken yet, each once; from now on they are."""
        given = np.array(keys, "S32")
        _, first = np.unique(given, return_index=True)
        fresh = np.zeros(len(given), bool)
        fresh[first] = True
        fresh &= ~np.isin(given, self._keys)
        if fresh.any():
            places = np.searchsorted(self._keys, mine := np.sort(given[fresh]))
            self._keys = np.insert(self._keys, places, mine)
        return fresh.tolist()


def array(column: pa.ChunkedArray) -> np.ndarray:
    """The column's hashes, without a Python string for each."""
    found = pa.concat_arrays(column.chunks) if column.chunks else pa.array([], pa.string())
    _, offsets, data = found.buffers()
    ends = np.frombuffer(offsets or b"\0" * 4, np.int32, len(found) + 1, 4 * found.offset)
    if len(found) == 0 or (np.diff(ends) != 32).any():
        return np.array(found.to_pylist(), "S32")
    return np.frombuffer(data, "S32", len(found), ends[0])

"""The benchmarks of memory, at a small size on the CPU: ready for the day that they meet a GPU."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
LEVELS = ["recorded", "call", "kept", "nested", "split"]


@pytest.fixture(scope="module")
def table() -> list[dict[str, str]]:
    """The rows that gpu.py prints of a small UNet."""
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "SD1.5"]
    words = subprocess.run(command, capture_output=True, text=True)
    lines = [line for line in words.stdout.splitlines() if line.startswith("|")]
    assert words.returncode == 0 and len(lines) > 2, words.stdout + words.stderr
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def test_every_level_in_every_precision(table):
    assert [row["level"] for row in table] == 3 * LEVELS


def test_what_is_counted_is_what_is_taken(table):
    for row in table:
        if row["level"] in ("recorded", "call") and row["weights"] == "fp32":
            assert 0.9 < float(row["peak / counted"]) < 1.25, row


def test_gradients_are_the_slopes(table):
    for row in table:
        bound = {"fp32": 1e-4, "16-bit": 1e-2, "8-bit": 1e-1}[row["weights"]]
        assert float(row["derivative"]) < bound, row

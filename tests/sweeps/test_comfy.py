"""A whole sweep of the demo model in a ComfyUI of its own, as `run.py sweep` starts it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo import switch
from sweeps.rows import Store

ROOT = Path(__file__).resolve().parents[2]
SWEEP = {
    "workflow": switch.recorded()
    | {"free": {"class_type": "DNONoRegularizer", "inputs": {}, "_meta": {"title": "Free"}}},
    "results": "results",
    "set": {
        "KSampler: before": None,
        "DNO Sampler: after.steps": 2,
        "DNO Sampler: after.iterations": 2,
        "DNO Sampler: after.learning_rate": 0.1,
    },
    "vary": [{"Prompt.text": ["a penguin"]}],
    "variants": {
        "plain": {"DNO Sampler: after.regularizer": {"node": "Free"}},
        "spectrum": {},
        "wrong": {"DNO Sampler: after.denoise": 0.0},
    },
    "held_out": {"brightness": {"class_type": "DNOBrightnessReward"}},
}


def sweep(file: Path, *options: str) -> subprocess.CompletedProcess:
    import run

    models = run.Home.of(Path(sys.prefix).parent).root / "models"
    environment = {**os.environ, "DNO_MODELS": str(models)}
    command = [sys.executable, "-m", "sweeps", str(file), *options]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory, demo_checkpoint):
    """The sweep's rows by variant, its store and what it said."""
    file = tmp_path_factory.mktemp("sweep") / "demo.json"
    file.write_text(json.dumps(SWEEP))
    said = sweep(file, "--report")
    assert said.returncode == 0, said.stderr
    store = Store(file.parent / "results")
    rows = {row["variant"]: row for row in store.read().to_pylist()}
    return rows, store, said.stderr, file


def picture(store, row, at):
    (name,) = (name for name in row["pictures"] if Path(name).name.startswith(f"{at}_"))
    return np.asarray(Image.open(store.pictures / name)) / 255


def test_each_row_has_its_numbers_and_pictures(done):
    rows, store, _, _ = done
    for name in ("plain", "spectrum"):
        row = rows[name]
        start, best, curves = (dict(row[each]) for each in ("start", "best", "curves"))
        assert row["error"] is None and row["iterations"] == 2 and row["made"] == 1
        # Darkness is 1 - mean, and Brightness here minus that: the pictures bear both out.
        for at, told in (("start", start), ("best", best)):
            assert told["reward"] == pytest.approx(1 - picture(store, row, at).mean(), abs=0.005)
            assert told["brightness"] == pytest.approx(-told["reward"], abs=0.005)
        assert best["reward"] > start["reward"] == curves["reward"][0]
        assert len(curves["P(z)"]) == 3 and curves["evaluations"][0] == 3
        assert row["seconds"] > row["engine_seconds"] > 0 and row["peak_memory"] > 2**20
    assert (
        picture(store, rows["plain"], "start") == picture(store, rows["spectrum"], "start")
    ).all()
    assert "term spectrum" in dict(rows["spectrum"]["curves"])
    assert "term spectrum" not in dict(rows["plain"]["curves"])


def test_a_row_that_fails_is_a_row_with_its_error(done):
    rows, _, said, _ = done
    assert rows["wrong"]["error"].startswith("DNOSampler: denoise is 0")
    assert rows["wrong"]["pictures"] == [] and "1 failed" in said


def test_nothing_is_left_beside_the_results(done):
    _, store, _, _ = done
    assert not (store.folder / "scratch").exists()
    assert {path.name for path in store.folder.iterdir()} == {
        *("rows", "journal", "pictures", "report.html", "table.md", ".lock")
    }


def test_again_nothing_is_done(done):
    rows, store, _, file = done
    before = {name: (store.pictures / name).stat().st_mtime_ns
              for row in rows.values() for name in row["pictures"]}  # fmt: skip
    said = sweep(file, "--dry-run")
    assert "3 rows, 3 of them done" in said.stderr and "0 rows are left" in said.stderr
    assert {name: (store.pictures / name).stat().st_mtime_ns for name in before} == before

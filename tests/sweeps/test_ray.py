"""On a Ray cluster of two workers on this machine: every row once, though a worker dies."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from sweeps import plan as plans
from sweeps import runners
from sweeps.comfy import Installation
from sweeps.rows import Store
from sweeps.runners import Work

pytest.importorskip("ray")
ROOT = Path(__file__).resolve().parents[2]


class Note:
    """A job that takes a moment and notes who made which row."""

    def __init__(self, installation, folder, worker):
        self.notes = Path(folder) / "notes"

    def run(self, plan, row):
        time.sleep(0.2)
        with self.notes.open("a") as notes:
            notes.write(f"{row.number} {os.getpid()}\n")
        return {"error": None, "best": {"reward": float(row.number)}, "seconds": 0.2}


def noted(folder):
    path = folder / "notes"
    lines = path.read_text().splitlines() if path.exists() else []
    return [tuple(map(int, line.split())) for line in lines]


def test_a_worker_that_is_killed_loses_nothing_and_makes_nothing_twice(tmp_path):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    graph = {"1": {"class_type": "Nothing", "inputs": {"seed": 0}}}
    given = {"workflow": graph, "vary": [{"1.seed": {"from": 1, "to": 48}}]}
    (tmp_path / "sweep.json").write_text(json.dumps(given))
    plan, store = plans.read(tmp_path / "sweep.json"), Store(tmp_path / "results")
    told, killed = [], []

    def strike():
        while len(noted(store.folder)) < 8:
            time.sleep(0.05)
        killed.append(noted(store.folder)[-1][1])
        os.kill(killed[0], signal.SIGKILL)

    threading.Thread(target=strike, daemon=True).start()
    with store.held() as run, runners.cluster("local", ROOT):
        work = Work(plan, store, store.keys())
        runners.on_ray(work, run, Installation(""), 2, told.extend, Note)
    rows = store.read().to_pylist()
    assert (
        sorted(row["number"] for row in rows)
        == list(range(48))
        == sorted({number for number, _ in noted(store.folder)})
    )
    numbers = [number for number, _ in noted(store.folder)]
    assert len(numbers) - len(set(numbers)) <= 1  # noted, and killed before it was written
    assert {row["key"] for row in rows} == {line["key"] for line in told} and len(told) == 48
    assert killed and any(pid != killed[0] for _, pid in noted(store.folder))

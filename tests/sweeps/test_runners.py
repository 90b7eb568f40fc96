"""Runs here: only what is missing, each row once; what interrupts, failures and limits leave."""

import json

import pytest

from sweeps import plan as plans
from sweeps import runners
from sweeps.rows import Store
from sweeps.runners import Work, here

GRAPH = {"1": {"class_type": "Nothing", "inputs": {"seed": 0, "level": 0}}}


class Count:
    """A job that notes the rows it made; it stops at a row, or fails at some."""

    def __init__(self, stop=None, fail=()):
        self.numbers, self.stop, self.fail = [], stop, fail

    def run(self, plan, row):
        if len(self.numbers) == self.stop:
            raise KeyboardInterrupt
        self.numbers.append(row.number)
        return {"error": "no" if row.number in self.fail else None, "best": {"x": row.number}}


@pytest.fixture
def sweep(tmp_path):
    given = {"workflow": GRAPH, "vary": [{"1.seed": {"from": 1, "to": 600}}]}
    (tmp_path / "sweep.json").write_text(json.dumps(given))
    plan = plans.read(tmp_path / "sweep.json")

    def go(job, plan=plan, retry=False, limit=None):
        store = Store(tmp_path / "results")
        with store.held() as run:
            work = Work(plan, store, store.keys(failed=not retry), limit)
            here(work, run, job, lambda records: None)
        return job.numbers, store

    return go


def test_a_second_run_does_nothing(sweep):
    numbers, store = sweep(Count())
    assert sorted(numbers) == list(range(600)) and numbers != sorted(numbers)
    assert sweep(Count())[0] == []
    assert sorted(store.read(["number"])["number"].to_pylist()) == list(range(600))


def test_an_interrupted_run_goes_on(sweep):
    first = Count(stop=321)
    with pytest.raises(KeyboardInterrupt):
        sweep(first)
    second, store = sweep(Count())
    assert len(first.numbers) == 321 and sorted(first.numbers + second) == list(range(600))
    assert len(store.read(["key"])) == 600


def test_a_limit_takes_the_next_rows(sweep):
    first, second = sweep(Count(), limit=10)[0], sweep(Count(), limit=300)[0]
    assert len(first) == 10 and len(second) == 300 and not set(first) & set(second)


def test_failed_rows_are_done_again_when_asked(sweep):
    fail = (3, 77)
    sweep(Count(fail=fail))
    assert sweep(Count())[0] == []
    numbers, store = sweep(Count(), retry=True)
    assert sorted(numbers) == list(fail)
    assert set(store.read(["error"])["error"].to_pylist()) == {None}


def test_rows_that_are_the_same_are_made_once(sweep, tmp_path):
    given = {
        "workflow": GRAPH,
        "vary": [{"1.seed": [1, 2, 1]}, {"1.level": [5, 5]}],
        "variants": {"a": {}, "b": {}},
    }
    (tmp_path / "same.json").write_text(json.dumps(given))
    numbers, _ = sweep(Count(), plans.read(tmp_path / "same.json"))
    assert len(numbers) == 2


def test_a_row_that_kills_its_worker_is_given_up(sweep, tmp_path):
    _, store = sweep(Count(), limit=1)
    plan = plans.read(tmp_path / "sweep.json")
    row, job = plan.row(7), Count()
    with store.held() as run:
        for _ in range(runners.DEATHS):
            store.batch(run, 0, marks=True).__enter__().begin(row.key)
        with store.batch(run, 0, marks=True) as batch:
            record = runners._run_row(job, plan, row, batch, run)
    assert not job.numbers and "ended 3 times in this row" in record["error"]

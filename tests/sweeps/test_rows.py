"""Results on disk: whole rows or none, each once, in files of bounded size."""

import errno
import json
from itertools import count

import numpy as np
import pyarrow.parquet as pq
import pytest

from sweeps import rows
from sweeps.keys import Keys
from sweeps.rows import Store
from tools.home import Failure


def record(number, run=1, **more):
    key = f"{number:032x}"
    return {"key": key, "number": number, "run": run, "best": {"reward": number / 2}, **more}


def keys(store):
    return sorted(int(key, 16) for key in store.read(["key"])["key"].to_pylist())


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def test_a_batch_becomes_a_file_with_what_it_was_told(store):
    with store.held() as run, store.batch(run, 0) as batch:
        batch.add(record(3, curves={"reward": [0.0, 1.5]}, pictures=["a.png"], error=None))
    (row,) = store.read().to_pylist()
    assert dict(row["best"]) == {"reward": 1.5} and dict(row["curves"]) == {"reward": [0.0, 1.5]}
    assert row["pictures"] == ["a.png"] and row["error"] is None
    assert not list(store.journals.iterdir())


def test_what_a_killed_run_left_is_there_but_for_half_a_line(store):
    with pytest.raises(SystemExit), store.held() as run:
        batch = store.batch(run, 0).__enter__()
        batch.add(record(1))
        batch.add(record(2))
        raise SystemExit
    batch.journal.write_bytes(batch.journal.read_bytes() + b'{"key": "0')
    with store.held() as run:
        assert run == 2 and keys(store) == [1, 2]


def test_a_batch_goes_on_where_its_worker_died(store):
    with store.held() as run:
        dead = store.batch(run, 0, marks=True).__enter__()
        dead.begin(record(1)["key"])
        dead.add(record(1))
        dead.begin(record(2)["key"])
        dead._file.write(b'{"half')
        with store.batch(run, 0, marks=True) as batch:
            assert set(batch.done) == {record(1)["key"]}
            assert batch.begin(record(2)["key"]) == 1
            batch.add(record(2))
        with store.batch(run, 0) as again:  # Ray asks for a batch that is done
            assert len(again.done) == 2
    assert keys(store) == [1, 2]


def test_a_fold_that_was_cut_short_is_finished(store):
    with pytest.raises(SystemExit), store.held() as run:
        batch = store.batch(run, 0).__enter__()
        batch.add(record(1))
        rows.write(batch.target, rows.table_of([record(1)]))
        raise SystemExit
    with store.held():
        assert keys(store) == [1]
    assert not list(store.journals.iterdir())


def test_a_full_disk_leaves_whole_lines(store, monkeypatch):
    with store.held() as run, pytest.raises(OSError, match="No space"), store.batch(run, 0) as b:
        b.add(record(1))
        file, b._file = b._file, Full(b._file)
        b.add(record(2))
    file.close()
    with store.held():
        assert keys(store) == [1]


class Full:
    """A file on a disk that takes half of what is written."""

    def __init__(self, file):
        self._file = file

    def write(self, data):
        self._file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def __getattr__(self, name):
        return getattr(self._file, name)


def test_a_parquet_file_is_whole_or_not_there(store, monkeypatch):
    def broken(table, file, **_):
        file.write(b"PAR1 and no more")
        raise OSError(errno.ENOSPC, "No space left on device")

    with store.held() as run:
        monkeypatch.setattr(pq, "write_table", broken)
        with pytest.raises(OSError, match="No space"), store.batch(run, 0) as batch:
            batch.add(record(1))
        monkeypatch.undo()
        assert not list(store.rows.iterdir())
    with store.held():
        assert keys(store) == [1]


def test_of_a_row_that_is_there_twice_the_newest_counts(store):
    for error in ("it failed", None):
        with store.held() as run, store.batch(run, 0) as batch:
            batch.add(record(1, run, error=error))
            batch.add(record(run + 1, run))
        assert len(store.keys(failed=False)) == (1 if error else 3)
    assert keys(store) == [1, 2, 3]
    assert store.read(["error"])["error"].to_pylist() == [None] * 3


def test_small_files_are_merged_and_files_stay_bounded(store, monkeypatch):
    monkeypatch.setattr(rows, "MOST", 8)
    with store.held() as run:
        for number in range(20):
            with store.batch(run, number) as batch:
                batch.add(record(number))
    sizes = [pq.read_metadata(path).num_rows for path in store.files()]
    assert sum(sizes) == 20 and max(sizes) <= 8 and len(sizes) <= 4
    assert keys(store) == list(range(20))


def test_two_sweeps_at_a_time_are_refused(store):
    with store.held(), pytest.raises(Failure, match="Another sweep"), Store(store.folder).held():
        pass


def test_keys_tell_what_is_new_once(monkeypatch):
    monkeypatch.setattr(Keys, "RECENT", 40)
    rng, taken = np.random.default_rng(0), Keys(np.empty(0, "S32"))
    seen = set()
    for _ in range(20):
        some = [f"{number:032x}" for number in rng.integers(0, 300, 50)]
        for key, new in zip(some, taken.new(some), strict=True):
            assert new == (key not in seen)
            seen.add(key)
    assert len(taken) == len(seen)


def test_journal_lines_are_json(store):
    with store.held() as run:
        batch, number = store.batch(run, 0).__enter__(), count()
        batch.add(record(next(number)))
        lines = batch.journal.read_text().splitlines()
    assert [json.loads(line)["number"] for line in lines] == [0]

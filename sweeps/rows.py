"""What is done, on disk: a row is there as a whole or not at all, and never twice.

    results/rows/0001-000004.parquet      finished rows of the first run's fourth batch
    results/journal/0001-000005.jsonl     a batch at work: a line for each row that is done
    results/pictures/ab/abcd.../          what the row's workflow saved

A batch's rows are appended to its journal, one line each; when the batch is done the journal
becomes a Parquet file, written beside and renamed. What an ended run left in journals is made
Parquet by the next one. Of a row that is there twice (it failed and was tried again) the newest
counts.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from .keys import Keys, array
from .words import Failure

NUMBERS = pa.map_(pa.string(), pa.float64())
SCHEMA = pa.schema(
    {
        "key": pa.string(),
        "number": pa.int64(),
        "variant": pa.string(),
        "settings": pa.string(),
        "error": pa.string(),
        "start": NUMBERS,  # name -> value of the first picture: reward, P(z), held-out scores ...
        "best": NUMBERS,  # ... and of the best one; means over a batch
        "best_step": pa.float64(),
        "iterations": pa.int64(),
        "stop_reason": pa.string(),  # why it ended early, in words
        "evaluations": pa.float64(),
        "curves": pa.map_(pa.string(), pa.list_(pa.float64())),  # name -> each iteration's value
        "pictures": pa.list_(pa.string()),  # files below pictures/
        "made": pa.int64(),  # pictures that were made, with those of every batch
        # What two runs of the same row may differ in:
        "seconds": pa.float64(),
        "engine_seconds": pa.float64(),  # of them, what the sweep itself took
        "peak_memory": pa.int64(),  # bytes
        "worker": pa.string(),
        "run": pa.int64(),
        "finished": pa.float64(),  # seconds since 1970
    }
)
MEASURED = ("seconds", "engine_seconds", "peak_memory", "worker", "run", "finished")
MOST = 4096  # rows in one file


class Store:
    """One sweep's results in a folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.rows, self.journals = self.folder / "rows", self.folder / "journal"
        self.pictures = self.folder / "pictures"

    @contextlib.contextmanager
    def held(self) -> Iterator[int]:
        """The results for one run alone, put in order: the number of the run."""
        for folder in (self.rows, self.journals, self.pictures):
            folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise Failure(f"Another sweep is writing to {self.folder}: wait for it.") from None
        try:
            self.tidy()
            yield 1 + max((int(path.name[:4]) for path in self.files()), default=0)
            self.tidy()
        finally:
            lock.release()

    def tidy(self) -> None:
        """Journals become Parquet files, small files one, and halves of rows go."""
        for part in self.rows.glob("*.part"):
            part.unlink()
        shutil.rmtree(self.folder / "scratch", ignore_errors=True)
        for journal in sorted(self.journals.glob("*.jsonl")):
            self.fold(journal)
        self._merge()

    def fold(self, journal: Path) -> None:
        """A journal's whole lines as the Parquet file of its name."""
        target = self.rows / f"{journal.stem}.parquet"
        records = recorded(journal)[0]
        if records and not target.exists():  # else the fold itself was cut short
            write(target, table_of(list(records.values())))
        journal.unlink()

    def _merge(self) -> None:
        small: list[Path] = []
        for path in [*sorted(self.rows.glob("*.parquet")), None]:
            count = pq.read_metadata(path).num_rows if path else 0
            held = sum(pq.read_metadata(each).num_rows for each in small)
            if path and count < MOST // 2 and held + count <= MOST:
                small.append(path)
                continue
            if len(small) > 1:  # the last name: it tells the newest run
                write(small[-1], pa.concat_tables(pq.read_table(each) for each in small))
                for each in small[:-1]:
                    each.unlink()
            small = [path] if path and count < MOST // 2 else []

    def batch(self, run: int, number: int, marks: bool = False) -> Batch:
        return Batch(self, f"{run:04d}-{number:06d}", marks)

    def keys(self, failed: bool = True) -> Keys:
        """The rows that need not be done. failed: those that failed are among them."""
        keys, errors = [np.empty(0, "S32")], [np.empty(0, "S32")]
        for path in self.files():
            table = pq.read_table(path, columns=["key", "error"])
            fine = pc.is_null(table["error"])
            keys.append(array(table.filter(fine)["key"]))
            errors.append(array(table.filter(pc.invert(fine))["key"]))
        return Keys(np.concatenate(keys + errors if failed else keys))

    def files(self) -> list[Path]:
        return sorted(self.rows.glob("*.parquet"))

    def read(self, columns: list[str] | None = None) -> pa.Table:
        """All rows, each once: of one that is there twice the newest."""
        needed = columns and list(dict.fromkeys([*columns, "key", "run"]))
        tables = [pq.read_table(path, columns=needed) for path in self.files()]
        if not tables:
            return SCHEMA.empty_table()
        table = pa.concat_tables(tables)
        order = np.lexsort((-table["run"].to_numpy(), array(table["key"])))
        _, first = np.unique(array(table["key"])[order], return_index=True)
        return table.take(pa.array(np.sort(order[first])))


class Batch:
    """Some rows of one run, finished together: `with store.batch(...) as batch: batch.add(...)`.

    A batch that was cut short (its worker died) goes on where it stopped: `done` has its rows.
    marks: note each row that is begun, so that one which kills its worker is known.
    """

    def __init__(self, store: Store, name: str, marks: bool = False):
        self.store, self.name, self._marks = store, name, marks
        self.journal = store.journals / f"{name}.jsonl"
        self.target = store.rows / f"{name}.parquet"
        self.done: dict[str, dict] = {}
        self.begun: dict[str, int] = {}
        self._file, self._synced = None, time.monotonic()

    def __enter__(self) -> Batch:
        if self.target.exists():
            self.done = {row["key"]: row for row in pq.read_table(self.target).to_pylist()}
            return self
        size = 0
        if self.journal.exists():
            self.done, self.begun, size = recorded(self.journal)
        self._file = open(self.journal, "ab", buffering=0)  # noqa: SIM115
        self._file.truncate(size)
        return self

    def begin(self, key: str) -> int:
        """How often this row was begun and never ended."""
        before = self.begun.get(key, 0)
        if self._marks:
            self._append({"begun": key})
        return before

    def add(self, record: dict) -> None:
        self._append(record)
        self.done[record["key"]] = record
        if time.monotonic() - self._synced > 1:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _append(self, line: dict) -> None:
        size = os.fstat(self._file.fileno()).st_size
        data = json.dumps(line).encode() + b"\n"
        try:
            if self._file.write(data) != len(data):
                raise OSError(28, "No space left on device")
        except OSError:
            self._file.truncate(size)
            raise

    def __exit__(self, kind, error, trace) -> None:
        if self._file is None:
            return
        self._file.close()
        if kind is None:
            if self.done:
                write(self.target, table_of(list(self.done.values())))
            self.journal.unlink()


def recorded(journal: Path) -> tuple[dict[str, dict], dict[str, int], int]:
    """A journal's rows by key, how often rows were begun, and the length of its whole lines."""
    done, begun, size = {}, {}, 0
    for line in journal.read_bytes().splitlines(keepends=True):
        try:
            entry = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            entry = None
        if entry is None:
            break
        size += len(line)
        if "begun" in entry:
            begun[entry["begun"]] = begun.get(entry["begun"], 0) + 1
        else:
            done[entry["key"]] = entry
    return done, begun, size


def table_of(records: list[dict]) -> pa.Table:
    maps = [field.name for field in SCHEMA if pa.types.is_map(field.type)]
    rows = [
        {**each, **{name: list(dict(each.get(name) or {}).items()) for name in maps}}
        for each in records
    ]
    return pa.Table.from_pylist(rows, SCHEMA)


def write(target: Path, table: pa.Table) -> None:
    """A Parquet file that is there as a whole or not at all."""
    part = target.with_suffix(".part")
    try:
        with open(part, "wb") as file:
            pq.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise

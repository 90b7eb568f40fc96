"""Where rows are made: in this process, or on Ray, one worker for each GPU."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from .comfy import FULL, Comfy, FullError, Installation, interrupt
from .keys import Keys
from .plan import Plan, Row
from .rows import Batch, Store
from .words import Failure

BATCH = 256  # rows of a batch at most: what is in one file at first
TURNS = 32  # batches that each of Ray's workers gets: the last ones end together, nearly
DEATHS = 3  # a row that ended its worker so often is given up

Told = Callable[[list[dict]], None]  # is given the records of what is newly done


class Job(Protocol):
    """What makes a row: ComfyUI, or what a test puts in its place."""

    def run(self, plan: Plan, row: Row) -> dict: ...


@dataclass(frozen=True)
class Work:
    """Rows that are to be made, in the plan's order."""

    plan: Plan
    store: Store
    taken: Keys
    limit: int | None = None

    def rows(self) -> Iterator[Row]:
        """Rows that nobody made or was given yet, looked up some at a time."""
        left, some = self.limit, []
        for row in self.plan.rows():
            some.append(row)
            if len(some) == BATCH:
                yield from (fresh := self._fresh(some, left))
                left, some = None if left is None else left - len(fresh), []
                if left == 0:
                    return
        yield from self._fresh(some, left)

    def _fresh(self, rows: list[Row], left: int | None) -> list[Row]:
        new = self.taken.new([row.key for row in rows])
        return [row for row, fine in zip(rows, new, strict=True) if fine][:left]

    def batches(self, size: int) -> Iterator[list[Row]]:
        batch = []
        for row in self.rows():
            batch.append(row)
            if len(batch) == size:
                yield batch
                batch = []
        if batch:
            yield batch


def here(work: Work, run: int, job: Job, told: Told) -> None:
    """Row after row in this process. An interrupt leaves what is done, and the row undone."""
    for number, rows in enumerate(work.batches(BATCH)):
        with work.store.batch(run, number) as batch, _full():
            for row in rows:
                told([_run_row(job, work.plan, row, batch, run)])


def _run_row(job: Job, plan: Plan, row: Row, batch: Batch, run: int) -> dict:
    """Make one row and put it in its batch."""
    deaths = batch.begin(row.key)
    if deaths < DEATHS:
        record = job.run(plan, row)
    else:
        record = {"error": f"The worker ended {deaths} times in this row, with no word why."}
    record["finished"] = time.time()
    record |= {"key": row.key, "number": row.number, "variant": row.variant, "run": run}
    record["settings"] = json.dumps(plan.named(row.settings), sort_keys=True)
    batch.add(record)
    return record


@contextmanager
def _full() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise FullError(error.filename or "") from None
        raise


@contextmanager
def stopping() -> Iterator[None]:
    """Ctrl-C stops the row that is executed, as the web UI's Cancel does; twice, everything."""

    def stop(number, frame) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupt()

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Worker:
    """One of Ray's workers: ComfyUI, kept from row to row, on a GPU of its own."""

    def __init__(
        self, plan: Plan, installation: Installation, folder: str, run: int, make: Callable = Comfy
    ):
        self.plan, self.store, self.run = plan, Store(Path(folder)), run
        self.job = make(installation, Path(folder), f"worker-{os.getpid()}")

    def __call__(self, items: dict) -> dict:
        """A batch's number and rows -> what was done, a JSON line for each row."""
        (batch_number,), (listed,) = items["batch"], items["rows"]
        lines = []
        try:
            with self.store.batch(self.run, int(batch_number), marks=True) as batch, _full():
                for number, key in json.loads(str(listed)):
                    record = batch.done.get(key)
                    if record is None:
                        row = self.plan.row(number)
                        record = _run_row(self.job, self.plan, row, batch, self.run)
                    kept = ("key", "error", "seconds", "engine_seconds", "made", "worker")
                    lines.append({name: record.get(name) for name in kept})
        except Failure as error:
            lines.append({"stop": str(error)})
        return {"done": [json.dumps(lines)]}


def on_ray(
    work: Work, run: int, installation: Installation, workers: int, told: Told, make=Comfy
) -> None:
    """Batches over Ray Data, an actor for each worker. The batches that a dead one left are done by
    others from where it stopped."""
    import ray

    size = max(1, min(BATCH, count(work) // (workers * TURNS)))
    items = [
        {"batch": number, "rows": json.dumps([(row.number, row.key) for row in rows])}
        for number, rows in enumerate(work.batches(size))
    ]
    if not items:
        return
    gpus = ray.cluster_resources().get("GPU", 0)
    data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker,
        fn_constructor_args=(work.plan, installation, str(work.store.folder), run, make),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1),
        **({"num_gpus": 1} if gpus else {"num_cpus": 1}),
    )
    for answer in data.iter_rows():
        lines = json.loads(answer["done"])
        stops = [line["stop"] for line in lines if "stop" in line]
        told([line for line in lines if "stop" not in line])
        if stops:
            raise Failure(stops[0])


def count(work: Work) -> int:
    left = max(len(work.plan) - len(work.taken), 0)
    return left if work.limit is None else min(left, work.limit)


@contextmanager
def cluster(address: str, root: Path) -> Iterator[int]:
    """A Ray cluster: `local` for one on this machine, else its address. How many workers it has."""
    import logging

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # nothing is told to anybody
    os.environ.setdefault("RAY_worker_niceness", "0")  # noqa: SIM112 they do the work
    try:
        import ray
        import ray.data
    except ImportError:
        raise Failure("--ray needs Ray: pip install 'ray[data]'.") from None

    logging.getLogger("ray.data").setLevel(logging.WARNING)
    environment = {"PYTHONPATH": str(root), "RAY_USAGE_STATS_ENABLED": "0"}
    ray.init(
        address=address,
        include_dashboard=False if address == "local" else None,
        runtime_env={"env_vars": environment},
        logging_level=logging.WARNING,
        log_to_driver=False,
    )
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    try:
        resources = ray.cluster_resources()
        yield int(resources.get("GPU", 0) or resources.get("CPU", 1))
    finally:
        ray.shutdown()

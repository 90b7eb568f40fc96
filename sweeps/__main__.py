"""`python run.py sweep FILE`: what is said and shown while a sweep runs."""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

from tqdm import tqdm

from .words import Failure

try:
    import pyarrow  # noqa: F401
except ImportError:
    sys.exit("run.py sweep: results are Parquet files: pip install pyarrow.")

from . import plan as plans
from . import report, runners
from .comfy import Comfy, Installation
from .plan import Plan
from .rows import Store

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    plan = plans.read(options.file.resolve())
    store = Store(plan.results)
    with store.held() as run:
        comfy = Comfy(installation_of(plan), store.folder)
        plan = comfy.fitted(plan)
        taken = store.keys(failed=not options.retry)
        left = max(len(plan) - len(taken), 0)
        say(f"{len(plan)} rows, {len(taken)} of them done: {store.folder}")
        work = runners.Work(plan, store, taken, 1 if options.dry_run else options.limit)
        if options.dry_run and len(taken):
            work = None
        if work and left:
            progress(work, run, comfy, options)
    if options.dry_run:
        say(estimate(store, len(plan)))
    if options.report:
        for path in report.write(plan, store):
            say(f"Written: {path}")
    return 0


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run.py sweep", allow_abbrev=False)
    add = parser.add_argument
    add("file", type=Path, help="what to vary: YAML or JSON, see sweeps/README.md")
    add("--ray", metavar="ADDRESS", help="on a Ray cluster; 'local' starts one on this machine")
    add("--workers", type=int, help="of the cluster; as many as it has GPUs, or processors")
    add("--limit", type=int, metavar="N", help="at most so many rows this time")
    add("--retry", action="store_true", help="do the rows again that failed")
    add("--dry-run", action="store_true", help="say how many rows, and from one row how long")
    add("--report", action="store_true", help="write report.html, and the file's table")
    options = parser.parse_args(arguments)
    for name in ("limit", "workers"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            parser.error(f"--{name} is {getattr(options, name)}: give a number from 1 on")
    return options


def installation_of(plan: Plan) -> Installation:
    """This machine's ComfyUI, our models folder and the packs that the sweep names."""
    comfyui = Path(os.environ["COMFYUI_PATH"])
    packs = []
    for name in plan.given.get("custom_nodes") or []:
        folders = [
            p for p in (plan.path.parent / name, comfyui / "custom_nodes" / name) if p.exists()
        ]
        if not folders:
            raise Failure(f"custom_nodes: {name} is neither beside {plan.path} nor in {comfyui}.")
        packs.append(str(folders[0].resolve()))
    threads = plan.given.get("threads", 1)
    if not isinstance(threads, int) or threads < 1:
        raise Failure(f"threads is {threads!r}: give a whole number from 1 on.")
    return Installation(str(comfyui), os.environ.get("DNO_MODELS", ""), tuple(packs), threads)


def progress(work: runners.Work, run: int, comfy: Comfy, options: argparse.Namespace) -> None:
    """Run with a bar: rows done, failed and left, the time left, pictures per hour."""
    bar = Bar(runners.count(work))
    try:
        if options.ray and not options.dry_run:
            with runners.cluster(options.ray, ROOT) as most:
                installation = installation_of(work.plan)
                runners.on_ray(work, run, installation, options.workers or most, bar.told)
        else:
            with runners.stopping():
                runners.here(work, run, comfy, bar.told)
    finally:
        bar.close()


class Bar:
    """`12/96 rows, 1 failed, 84 left | 0:42:10 left, 118 pictures/h`"""

    def __init__(self, rows: int):
        self.failed, self.pictures, self.began = 0, 0, time.monotonic()
        shape = "{n_fmt}/{total_fmt} rows{postfix} |{bar:20}| {remaining} left, {elapsed} so far"
        self._bar = tqdm(total=rows, bar_format=shape, mininterval=0.5, file=sys.stderr)
        self._show()

    def told(self, records: list[dict]) -> None:
        self.failed += sum(bool(record.get("error")) for record in records)
        self.pictures += sum(record.get("made") or 0 for record in records)
        self._show(len(records))
        self._bar.update(len(records))

    def _show(self, more: int = 0) -> None:
        hours = max(time.monotonic() - self.began, 1e-3) / 3600
        left = max((self._bar.total or 0) - self._bar.n - more, 0)
        words = f"{self.failed} failed, {left} left, {self.pictures / hours:.0f} pictures/h"
        self._bar.set_postfix_str(words, refresh=False)

    def close(self) -> None:
        self._bar.close()


def estimate(store: Store, rows: int) -> str:
    """How long the rest takes on one worker, from the rows that are done."""
    table = store.read(["seconds", "error"])
    seconds = statistics.median(table["seconds"].to_pylist())
    left = max(rows - len(table), 0)
    return (
        f"A row takes {seconds:.1f} s: {left} rows are left, {left * seconds / 3600:.2f} hours on "
        "one worker."
    )


def say(text: str) -> None:
    sys.stderr.write(text + "\n")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Failure as error:
        sys.exit(f"run.py sweep: {error}")
    except KeyboardInterrupt:
        sys.exit("run.py sweep: stopped; the same command goes on from here.")

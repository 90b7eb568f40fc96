"""What the sweeps promise, shown: python run.py exec -- python benchmarks/sweeps.py [PART ...]

million   a job that does nothing, a million times: rows per second, memory
same      the demo model plain, on one Ray worker and on two: bit for bit the same; how much faster
killed    a worker killed in the middle, a node lost, a driver stopped: nothing lost, nothing twice
full      a disk that fills up; needs a small one: --disk FOLDER
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
HOME = Path(os.environ.get("DNO_BENCHMARKS", ROOT / ".comfyui" / "benchmarks")) / "sweeps"
sys.path.insert(0, str(ROOT))

from sweeps import plan as plans  # noqa: E402
from sweeps import runners  # noqa: E402
from sweeps.measure import peak  # noqa: E402
from sweeps.rows import MEASURED, Store  # noqa: E402

DEMO = {
    "workflow": str(ROOT / "benchmarks" / "climb.json"),
    "custom_nodes": [str(ROOT / "benchmarks" / "demo_nodes.py")],
    "set": {"Best of N": None, "Climb.steps": 4},
    "vary": [{"Prompt.value": ["a penguin", "a cat", "a frog"]}],
    "variants": {
        "none": {"Climb.regularizer": {"node": "No regularizer"}},
        "spectrum": {"Climb.regularizer": {"node": "Spectrum"}},
    },
    "held_out": {"contrast": {"class_type": "DNOContrastReward"}},
}


class Nothing:
    """A job that only says that it ran."""

    def run(self, plan, row) -> dict:
        return {"error": None, "best": {"reward": row.number % 97 / 97}, "seconds": 0.0, "made": 1}


def million(arguments) -> None:
    print("| rows | rows per second | peak memory | of it since the first |\n|---|---|---|---|")
    graph = {"1": {"class_type": "Nothing", "inputs": {"prompt": "", "seed": 0}}}
    for count in (1_000, 10_000, 100_000, 1_000_000)[: arguments.sizes]:
        folder = fresh("million")
        given = {
            "workflow": graph,
            "results": str(folder / "results"),
            "vary": [
                {"Nothing.prompt": [f"prompt {place}" for place in range(1000)]},
                {"Nothing.seed": {"from": 1, "to": count // 1000}},
            ],
        }
        plan = plans.read(written(folder, given))
        store, began = Store(plan.results), time.perf_counter()
        with store.held() as run:
            work = runners.Work(plan, store, store.keys())
            runners.here(work, run, Nothing(), lambda records: None)
        seconds = time.perf_counter() - began
        first = peak() if count == 1000 else first  # noqa: F821
        assert len(store.keys()) == count == len(plan)
        files = len(store.files())
        print(
            f"| {count} in {files} files | {count / seconds:.0f} | {peak() / 2**20:.0f} MB "
            f"| {(peak() - first) / 2**20:.0f} MB |",
            flush=True,
        )


def same(arguments) -> None:
    runs = {"plain": [], "one worker": ["--ray", "local", "--workers", "1"]}
    runs["two workers"] = ["--ray", "local", "--workers", "2"]
    stores = {}
    print("| run | rows | rows per hour | engine's share of a row |\n|---|---|---|---|")
    for name, options in runs.items():
        folder = fresh(name.replace(" ", "_"))
        file = written(folder, sweep(folder, arguments))
        sweeping(file, *options).wait()
        stores[name] = Store(folder / "results")
        rate, share = speed(stores[name])
        count = len(stores[name].keys(failed=False))
        print(f"| {name} | {count} | {rate:.0f} | {share:.2%} |", flush=True)
    plain = contents(stores["plain"])
    for name, store in stores.items():
        assert contents(store) == plain, f"{name} differs from plain"
    print("Numbers, curves and pictures of all three are the same, bit for bit.")


def killed(arguments) -> None:
    plain = contents(Store(HOME / "plain" / "results"))
    scenes = (
        ("a worker killed", strike_worker, False),
        ("a node lost", None, False),
        ("the driver killed, on Ray", strike_driver, True),
        ("the driver killed, plain", strike_driver, True),
        ("Ctrl-C, plain", strike_interrupt, True),
    )
    for name, strike, again in [scene for scene in scenes if arguments.only in scene[0]]:
        folder = fresh(name.replace(" ", "_").replace(",", ""))
        file = written(folder, sweep(folder, arguments))
        store, options = Store(folder / "results"), ["--ray", "local", "--workers", "2"]
        if name == "a node lost":
            before = lose_node(file, store)
        else:
            driver = sweeping(file, *([] if "plain" in name else options))
            before = wait_for(store, 2, driver)
            strike(driver)
            driver.wait()
        if again:
            resting()
            found = begun(store)
            sweeping(file, *([] if "plain" in name else options)).wait()
        else:
            found = before
        after = made(store)
        lost = [key for key in found if key not in after]
        twice = [key for key in found if key in after and after[key] != found[key]]
        assert contents(store) == plain, f"{name}: the results differ from plain"
        print(
            f"{name}: {len(found)} rows before, {len(after)} after; lost {len(lost)}, made twice "
            f"{len(twice)}; bit for bit the plain run's",
            flush=True,
        )
        assert not lost and not twice


def full(arguments) -> None:
    """On a disk that has room for some rows only; then there is room."""
    plain = contents(Store(HOME / "plain" / "results"))
    folder = Path(arguments.disk)
    given = sweep(HOME, arguments) | {"results": str(folder / "results")}
    file = written(fresh("full"), given)
    filler = folder / "filler"
    driver = sweeping(file)
    wait_for(Store(folder / "results"), 2, driver)
    with open(filler, "wb", buffering=0) as out:
        try:
            while out.write(b"0" * 4096):
                pass
        except OSError as error:
            print(f"the disk is filled up: {error.strerror}")
    print(f"the sweep ended with {driver.wait()}")
    found = begun(Store(folder / "results"))
    filler.unlink()
    sweeping(file).wait()
    store = Store(folder / "results")
    after = made(store)
    assert contents(store) == plain
    assert all(after.get(key) == stamp for key, stamp in found.items())
    print(f"{len(found)} rows before, {len(after)} after; lost 0, made twice 0")


def sweep(folder: Path, arguments) -> dict:
    given = json.loads(json.dumps(DEMO)) | {"results": str(folder / "results")}
    given["set"]["Climb.iterations"] = arguments.iterations
    given["vary"].append({"Seed.value": {"from": 1, "to": arguments.seeds}})
    return given


def fresh(name: str) -> Path:
    shutil.rmtree(HOME / name, ignore_errors=True)
    (HOME / name).mkdir(parents=True)
    return HOME / name


def written(folder: Path, given: dict) -> Path:
    (folder / "sweep.json").write_text(json.dumps(given))
    return folder / "sweep.json"


def sweeping(file: Path, *options: str) -> subprocess.Popen:
    environment = {"DNO_MODELS": str(ROOT / ".comfyui" / "models"), **os.environ}
    log = open(file.parent / "log", "ab")  # noqa: SIM115
    command = [sys.executable, "-m", "sweeps", str(file), *options]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True
    )


def wait_for(store: Store, rows: int, driver: subprocess.Popen) -> dict[str, float]:
    """The rows that are done when there are so many."""
    while driver.poll() is None and len(found := begun(store)) < rows:
        time.sleep(0.2)
    assert driver.poll() is None, "it ended too early"
    return found


def begun(store: Store) -> dict[str, float]:
    """Rows that are done, of journals too: key -> when its pictures were put in place."""
    from sweeps.rows import recorded

    keys = set(made(store))
    for journal in store.journals.glob("*.jsonl"):
        keys |= set(recorded(journal)[0])
    return {key: stamp(store, key) for key in keys}


def made(store: Store) -> dict[str, float]:
    if not store.rows.exists():
        return {}
    keys = [key for path in store.files() for key in store.read(["key"])["key"].to_pylist() if path]
    return {key: stamp(store, key) for key in keys}


def stamp(store: Store, key: str) -> float:
    return (store.pictures / key[:2] / key / "best_00001_.png").stat().st_mtime


def strike_worker(driver: subprocess.Popen) -> None:
    import psutil

    family = psutil.Process(driver.pid).children(recursive=True)
    workers = [each for each in family if "MapWorker" in " ".join(each.cmdline() or [each.name()])]
    workers[0].send_signal(signal.SIGKILL)


def strike_driver(driver: subprocess.Popen) -> None:
    driver.kill()


def strike_interrupt(driver: subprocess.Popen) -> None:
    driver.send_signal(signal.SIGINT)


def resting() -> None:
    """Until Ray's processes have noticed that their driver is gone."""
    time.sleep(15)


def lose_node(file: Path, store: Store) -> dict[str, float]:
    """A cluster of three nodes on this machine, two with a worker, one of which goes away."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_worker_niceness"] = "0"  # noqa: SIM112
    os.environ["RAY_raylet_start_wait_time_s"] = "300"  # noqa: SIM112 this machine may be busy
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    try:
        driver = sweeping(file, "--ray", cluster.address, "--workers", "2")
        found = wait_for(store, 2, driver)
        cluster.remove_node(nodes[0], allow_graceful=False)
        time.sleep(1)
        cluster.add_node(num_cpus=1)  # another one in its place
        driver.wait()
    finally:
        cluster.shutdown()
    return found


def contents(store: Store) -> dict[str, tuple]:
    """key -> everything of a row that must not depend on where it was made, pictures' bytes too."""
    found = {}
    for row in store.read().to_pylist():
        row = {name: value for name, value in row.items() if name not in MEASURED}
        pictures = [(store.pictures / name).read_bytes() for name in row["pictures"]]
        found[row["key"]] = (json.dumps(row, sort_keys=True), pictures)
    return found


def speed(store: Store) -> tuple[float, float]:
    """Rows per hour between each worker's first and last row; the share that is not the row's."""
    rows, rate, outside, total = store.read().to_pylist(), 0.0, 0.0, 0.0
    for worker in {row["worker"] for row in rows}:
        mine = sorted((r for r in rows if r["worker"] == worker), key=lambda row: row["finished"])
        if len(mine) > 1:
            span = mine[-1]["finished"] - mine[0]["finished"]
            inside = np.sum([row["seconds"] - row["engine_seconds"] for row in mine[1:]])
            rate += (len(mine) - 1) / span * 3600
            outside, total = outside + span - inside, total + span
    return rate, float(outside / total)


def main() -> None:
    parts = {"million": million, "same": same, "killed": killed, "full": full}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", default=["million", "same", "killed"])
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--iterations", type=int, default=3)
    parser.add_argument("--sizes", type=int, default=4)
    parser.add_argument("--only", default="", help="of killed: the scene whose name has this")
    parser.add_argument("--disk", help="a folder on a small disk of its own")
    arguments = parser.parse_args()
    for part in arguments.parts:
        parts[part](arguments)


if __name__ == "__main__":
    main()

"""One command from a bare Python to Direct Noise Optimization in the real ComfyUI.

    python run.py demo              prepare everything and run the demo; pictures in output/dno_demo
    python run.py test [ARGS]       prepare everything and run the tests (ARGS go to pytest)
    python run.py test --oldest-torch [ARGS]    the same on the oldest torch that is supported
    python run.py ui                start ComfyUI with the pack, its demo checkpoint and workflow
    python run.py sweep FILE ...    many pictures, here or on Ray (--help; sweeps/README.md)
    python run.py exec -- CMD ...   run any command in the prepared environment

COMFYUI_PATH names a ComfyUI of yours to use; without it, a private one is made in .comfyui.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from demo import job, switch
from tools.home import ROOT, WINDOWS, Failure, Home, digest, say
from tools.prepare import prepare, run_steps
from tools.server import server

CHECKPOINT = "checkpoints/dno_demo.safetensors"
CLIP = "reward_models/dno_demo_clip.safetensors"


def demo_checkpoint(home: Home) -> Path:
    """The demo checkpoint in a models folder of our own, and its CLIP beside it."""
    demo_clip(home)
    return assembled(home, "checkpoint.py", CHECKPOINT)


def demo_clip(home: Home) -> Path:
    """The CLIP that was trained with the demo checkpoint, as a reward model."""
    return assembled(home, "reward_model.py", CLIP)


def assembled(home: Home, script: str, name: str) -> Path:
    """The file that a script in demo/ writes, made anew when a part of demo/ changes."""
    source, target = ROOT / "demo" / script, home.root / "models" / name
    if not source.exists():
        raise Failure(f"demo/{script} is missing: get a complete checkout of this pack.")
    parts = [part for part in sorted(source.parent.iterdir()) if part.is_file()]
    wanted = digest([hash_of(part) for part in parts])
    target.parent.mkdir(parents=True, exist_ok=True)
    command = [home.python, str(source), str(target)]
    advice = f"{target.name} could not be assembled: see the message above."
    step = (target.name, wanted, lambda: home.call(command, advice))
    stamp = target.with_suffix(".json")
    if not target.exists():
        stamp.unlink(missing_ok=True)
    run_steps(stamp, [step])
    return target


def run_tests(home: Home, chosen: list[str]) -> int:
    """All tests in as many processes as there are cores, four at most; chosen ones in this one."""
    if (ROOT / "demo" / "weights.safetensors").exists():
        demo_checkpoint(home)  # before, so that no two processes assemble it
    count = min(os.cpu_count() or 1, 4)
    options = chosen or ["--numprocesses", str(count), "--dist", "loadfile"]
    return run_command(home, ["pytest", *options], cwd=ROOT)


def run_demo(home: Home) -> None:
    start = time.monotonic()
    demo_checkpoint(home)
    say("Starting ComfyUI")
    with server(home, home.root / "demo") as client:
        for workflow, results in job.DEMOS.items():
            say(f"{workflow}: optimising the noise of one picture, a minute or so on two cores")
            made = job.run(client, say, switch.recorded(workflow), results)
            say(
                "  {prompt}: reward {reward_before:.3f} -> {reward_after:.3f}, P(z) "
                "{probability_before:.2f} -> {probability_after:.2f}, {iterations} iterations; "
                "before.png, after.png, history.png: {results}".format(**made, results=results)
            )
    say(f"{time.monotonic() - start:.0f} s")


def run_ui(home: Home, port: int) -> None:
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", port)) == 0:
            raise Failure(f"Port {port} is in use: choose another one with --port.")
    demo_checkpoint(home)
    data = home.root / "ui"
    mine = data / "user" / "default" / "workflows"
    copy_workflows(switch.texts(), mine, data / "workflows.json")
    with server(home, data, port, show=True) as client:
        say(f"\nComfyUI is at {client.address} - the demo workflows are in the sidebar's Workflows")
        say("Press Ctrl+C here to stop it.\n")
        while True:
            time.sleep(1)
            client.system_stats()


def copy_workflows(texts: dict[str, str], target: Path, stamps: Path) -> None:
    """Put workflows there, by file name, or renew them; one that the user edited stays theirs."""
    target.mkdir(parents=True, exist_ok=True)
    found, copied = {}, {}
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(stamps.read_text())
    for name, text in texts.items():
        mine = target / name
        if mine.exists() and hash_of(mine) != found.get(name):
            continue
        mine.write_text(text, encoding="utf-8")
        copied[name] = hash_of(mine)
    stamps.write_text(json.dumps(found | copied))


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_command(home: Home, command: list[str], cwd: Path | None = None) -> int:
    if not command:
        raise Failure("Say what to run: python run.py exec -- CMD ...")
    program = shutil.which(command[0], path=home.environ["PATH"])
    if not program:
        raise Failure(f"There is no program {command[0]} to run.")
    if WINDOWS:
        return subprocess.run([program, *command[1:]], env=home.environ, cwd=cwd).returncode
    os.chdir(cwd or Path.cwd())
    return os.execve(program, [program, *command[1:]], home.environ)


def run_sweep(home: Home, arguments: list[str]) -> int:
    """A sweep of the user's file, with the demo checkpoint among the models."""
    demo_checkpoint(home)
    os.environ["DNO_MODELS"] = str(home.root / "models")
    given = [str(Path(each).resolve()) if Path(each).is_file() else each for each in arguments]
    return run_command(home, ["python", "-m", "sweeps", *given], cwd=ROOT)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("command", choices=("demo", "test", "ui", "sweep", "exec"))
    parser.add_argument("--env", type=Path, default=ROOT / ".comfyui", help="another place for it")
    parser.add_argument("--port", type=int, default=8188, help="for ui")
    parser.add_argument(
        "--oldest-torch", action="store_true", help="in an environment of its own beside the other"
    )
    cut = arguments.index("--") if "--" in arguments else len(arguments)
    options, rest = parser.parse_known_args(arguments[:cut])
    if rest and options.command not in ("test", "sweep"):
        parser.error(f"unknown: {' '.join(rest)}")
    rest += arguments[cut + 1 :]
    home = Home.of(options.env)
    if options.oldest_torch:
        home = Home.of(options.env / "oldest_torch", "oldest torch")
    extras = ("sweeps", "ray")[: 1 + any(each.startswith("--ray") for each in rest)]
    extras = extras if options.command == "sweep" else ()
    prepare(home, tests=options.command in ("test", "exec"), extras=extras)
    if options.command == "sweep":
        return run_sweep(home, rest)
    if options.command == "exec":
        return run_command(home, rest)
    if options.command == "test":
        return run_tests(home, rest)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    run_demo(home) if options.command == "demo" else run_ui(home, options.port)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (Failure, job.Failure) as error:
        sys.exit(f"run.py: {error}")
    except KeyboardInterrupt:
        sys.exit("run.py: stopped; the same command goes on from here.")

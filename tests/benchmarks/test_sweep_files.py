"""The benchmarks that are sweeps: every node, input and value that they name exists."""

import importlib.util
from pathlib import Path

import nodes
import pytest
from comfy_extras import nodes_primitive

from sweeps import plan as plans
from sweeps.check import Types, check

from ..properties import executor

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
FILES = sorted(BENCHMARKS.glob("*.yaml"))


@pytest.fixture
def types(monkeypatch, demo_checkpoint):
    """ComfyUI's nodes, ours and the benchmarks' own."""
    executor.register(monkeypatch)
    spec = importlib.util.spec_from_file_location("demo_nodes", BENCHMARKS / "demo_nodes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    primitives = {each.__name__: each for each in (nodes_primitive.String, nodes_primitive.Int)}
    known = {cls.GET_SCHEMA().node_id: cls for cls in primitives.values()}
    for name, cls in {**module.NODE_CLASS_MAPPINGS, **known}.items():
        monkeypatch.setitem(nodes.NODE_CLASS_MAPPINGS, name, cls)
    return Types()


@pytest.mark.parametrize("file", FILES, ids=[file.stem for file in FILES])
def test_a_sweep_names_what_there_is(file, types, tmp_path):
    text = file.read_text(encoding="utf-8")
    assert "results" not in text  # in output/, where a sweep without a word puts them
    plan = plans.read(file)
    check(plan, types)
    assert len(plan) >= 20 and all(plan.row(number).key for number in (0, len(plan) - 1))

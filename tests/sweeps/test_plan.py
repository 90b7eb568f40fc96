"""What a sweep's file asks for: rows by their number, their hashes, their order, its mistakes."""

import itertools
import json

import pytest

from sweeps import plan as plans
from sweeps.axes import values
from sweeps.shuffle import Shuffle
from tools.home import Failure

GRAPH = {
    "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a cat", "clip": ["2", 1]}},
    "2": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "a.safetensors"}},
    "3": {
        "class_type": "KSampler",
        "inputs": {"seed": 1, "steps": 8, "positive": ["1", 0], "model": ["2", 0]},
        "_meta": {"title": "Sampler: main"},
    },
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    "5": {"class_type": "Unused", "inputs": {"level": 1}},
}


@pytest.fixture
def read(tmp_path):
    def reading(**given):
        (tmp_path / "prompts.txt").write_text("a cat\n\n  a dog \n", encoding="utf-8")
        (tmp_path / "sweep.json").write_text(json.dumps({"workflow": GRAPH, **given}))
        return plans.read(tmp_path / "sweep.json")

    return reading


def settings(plan):
    return [plan.row(number).settings for number in range(len(plan))]


def test_entries_multiply_and_inputs_of_an_entry_move_together(read):
    plan = read(
        vary=[
            {"CLIPTextEncode.text": ["a", "b"], "Sampler: main.seed": [1, 2]},
            {"Sampler: main.steps": {"from": 4, "to": 8, "step": 2}},
        ]
    )
    assert settings(plan) == [
        {"1.text": text, "3.seed": seed, "3.steps": steps}
        for text, seed in (("a", 1), ("b", 2))
        for steps in (4, 6, 8)
    ]
    graph = plan.row(5).graph
    assert graph["1"]["inputs"]["text"] == "b" and graph["3"]["inputs"]["steps"] == 8
    assert GRAPH["1"]["inputs"]["text"] == "a cat"


def test_variants_are_groups_of_settings_over_the_same_pairs(read):
    plan = read(
        vary=[{"3.seed": [1, 2]}],
        variants={"none": {}, "fast": {"3.steps": 2}, "out": {"Unused": None}},
    )
    rows = [plan.row(number) for number in range(6)]
    assert [(row.variant, row.pair) for row in rows] == [
        (name, pair) for pair in (0, 1) for name in ("none", "fast", "out")
    ]
    assert rows[1].graph["3"]["inputs"]["steps"] == 2 and "5" not in rows[2].graph
    assert [row.variant for row in plan.samples()] == ["none", "fast", "out"]


def test_an_input_may_be_what_is_compared(read):
    plan = read(vary=[{"3.seed": [1, 2]}, {"3.steps": [4, 8]}], compare=["3.steps"])
    assert [plan.variant(number) for number in range(4)] == [
        ("3.steps 4", 0), ("3.steps 8", 0), ("3.steps 4", 1), ("3.steps 8", 1)
    ]  # fmt: skip
    alone = read(vary={"3.steps": [4, 8]}, compare=["3.steps"])  # one entry, not in a list
    assert [alone.variant(number) for number in range(2)] == [("3.steps 4", 0), ("3.steps 8", 0)]


def test_values_come_from_files_ranges_and_draws(tmp_path):
    (tmp_path / "p.txt").write_text("a cat\n\n  a dog \n", encoding="utf-8")
    assert values("x", {"file": "p.txt"}, tmp_path, 0) == ["a cat", "a dog"]
    assert values("x", {"from": 0.1, "to": 0.5, "step": 0.2}, tmp_path, 0) == [0.1, 0.3, 0.5]
    given = {"draw": "log-uniform", "low": 1e-3, "high": 1.0, "count": 500}
    drawn = values("x", given, tmp_path, 0)
    assert (
        list(drawn)
        == list(values("x", given, tmp_path, 0))
        != list(values("x", given, tmp_path, 1))
    )
    assert all(1e-3 <= value <= 1 for value in drawn)
    assert 0.4 < sum(value < 10**-1.5 for value in drawn) / 500 < 0.6


def test_a_node_is_taken_out_with_all_that_hangs_on_it(read):
    plan = read(set={"Sampler: main": None})
    assert set(plan.base) == {"1", "2", "5"}
    assert "positive" not in read(set={"3.positive": None}).base["3"]["inputs"]


def test_links_are_given_by_title(read):
    plan = read(set={"3.positive": {"node": "Unused", "output": 2}})
    assert plan.base["3"]["inputs"]["positive"] == ["5", 2]


def test_the_hash_is_of_what_determines_a_row(read):
    def key(**given):
        plan = read(**given)
        object.__setattr__(plan, "outputs", frozenset({"4"}))
        return plan.row(0).key

    first = key()
    assert key(set={"5.level": 2}) == first  # nothing that makes the picture
    assert key(vary=[{"3.seed": [1]}], variants={"a": {}}) == first
    assert key(set={"3.seed": 2}) != first and key(set={"1.text": "a dog"}) != first


def test_files_are_a_part_of_what_determines_a_row(read):
    plan = read()
    keys = []
    for content in ("one", "one", "other"):
        object.__setattr__(plan, "files", {"a.safetensors": content})
        keys.append(plan.row(0).key)
    assert keys[0] == keys[1] != keys[2]


@pytest.mark.parametrize("length", [1, 2, 3, 10, 1000, 4097])
def test_the_order_has_every_row_once(length):
    order = [Shuffle(length, 3)[index] for index in range(length)]
    assert sorted(order) == list(range(length))
    if length > 100:
        assert order != [Shuffle(length, 4)[index] for index in range(length)]
        half = order[: length // 2]  # a fair sample: its mean is that of all, within 4 errors
        error = length / 12**0.5 / len(half) ** 0.5
        assert abs(sum(half) / len(half) - (length - 1) / 2) < 4 * error


def test_a_billion_rows_are_there_when_asked_for(read):
    plan = read(vary=[{"3.seed": {"from": 1, "to": 10**6}}, {"3.steps": {"from": 1, "to": 1000}}])
    assert len(plan) == 10**9
    assert len({row.key for row in itertools.islice(plan.rows(), 2000)}) == 2000
    assert plan.row(10**9 - 1).settings == {"3.seed": 10**6, "3.steps": 1000}


def test_rows_with_the_same_models_come_together(read):
    plan = read(vary=[{"2.ckpt_name": ["a.pt", "b.pt"]}, {"3.seed": {"from": 1, "to": 50}}])
    object.__setattr__(plan, "files", {"a.pt": "1", "b.pt": "2"})
    names = [row.settings["2.ckpt_name"] for row in plan.rows()]
    assert len(list(itertools.groupby(names))) == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"vary": [{"Sampler: man.seed": [1]}]}, "no node 'Sampler: man'; did you mean 'Sampler:"),
        ({"varry": []}, "there is no 'varry'; did you mean 'vary'"),
        ({"vary": [{"3.seed": [1, 2], "3.steps": [1, 2, 3]}]}, "3.seed has 2, 3.steps has 3"),
        ({"vary": [{"3.seed": {"draw": "unifrom", "count": 2}}]}, "did you mean 'uniform'"),
        ({"vary": [{"3.seed": {"draw": "uniform", "low": 1}}]}, "3.seed: say how many to draw"),
        ({"vary": [{"3.seed": {"file": "none.txt"}}]}, "none.txt cannot be read"),
        ({"vary": [{"3.seed": []}]}, "needs as many values each"),
        ({"workflow": {"nodes": []}}, "save it with 'Export .API.'"),
        ({"workflow": "missing.json"}, "missing.json cannot be read"),
        ({"held_out": {"x": {"kind": 1}}}, "there is no 'kind'"),
        ({"compare": ["3.sed"], "vary": [{"3.seed": [1]}]}, "did you mean '3.seed'"),
    ],
)
def test_a_mistake_is_one_sentence(read, given, sentence):
    with pytest.raises(Failure, match=sentence) as told:
        read(**given)
    assert "\n" not in str(told.value)

"""Subgraph blueprints: ComfyUI finds them, they ask three things, and they run."""

import json
from pathlib import Path

import pytest

from demo import job, switch
from tools.templates import wires
from tools.templates.blueprints import BLUEPRINTS

from ..support.unfolded import unfolded

FOLDER = Path(__file__).resolve().parents[2] / "subgraphs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
WIRES = {"model", "clip", "vae", "image"}
each = pytest.mark.parametrize("name", NAMES)


def stored(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def prompt_of(name: str, **shown) -> dict:
    """Loader and blueprint with the demo's model, small and quick."""
    loader = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": switch.CHECKPOINT}}
    picture = {"class_type": "LoadImage", "inputs": {"image": "example.png"}}
    given = {"model": ["1", 0], "clip": ["1", 1], "vae": ["1", 2], "image": ["2", 0], **shown}
    given = {"prompt": "a penguin", "strength": "brisk", "speed": "one pass", **given}
    made = unfolded(stored(name), given)
    for node in made.values():
        kind, inputs = node["class_type"], node["inputs"]
        if kind == "EmptyLatentImage":
            inputs |= {"width": 128, "height": 128}
        if kind == "DNOSampler":
            inputs |= {"steps": 4, "cfg": 3.0}
        if kind == "DNOLoadRewardModel":
            inputs["name"] = switch.CLIP
        if kind == "CLIPVisionLoader":
            node["class_type"] = "DNOLoadRewardModel"
            node["inputs"] = {"name": switch.CLIP, "precision": "automatic"}
    return {"1": loader, "2": picture, **made}


def test_the_promised_ones_exist():
    assert sorted(BLUEPRINTS) == NAMES and len(NAMES) == 7


def test_comfyui_finds_them(server):
    found = server._json("/global_subgraphs")
    mine = {e["name"]: key for key, e in found.items() if e["info"]["node_pack"].endswith("DNO")}
    assert set(mine) == set(NAMES)
    for name, key in mine.items():
        assert json.loads(server._json(f"/global_subgraphs/{key}")["data"]) == stored(name)


@each
def test_it_asks_prompt_strength_and_speed_and_nothing_else(name, server):
    (outer,) = stored(name)["nodes"]
    (inner,) = stored(name)["definitions"]["subgraphs"]
    widgets = [socket["name"] for socket in outer["inputs"] if socket.get("widget")]
    assert widgets == ["prompt", "strength", "speed"] and len(outer["widgets_values"]) == 3
    assert {socket["name"] for socket in outer["inputs"]} - set(widgets) <= WIRES
    assert [socket["name"] for socket in inner["inputs"]] == [s["name"] for s in outer["inputs"]]
    described = server.object_info("DNOStrength")["DNOStrength"]["input"]["required"]
    assert described["strength"][1]["options"] == ["gentle", "brisk", "strong"]
    assert described["speed"][1]["options"] == ["one pass", "fast", "thorough"]
    assert stored(name)["extra"]["BlueprintDescription"].endswith(".")


@each
def test_its_links_hold_on_both_ends(name):
    """Also those to its own inputs and its output, so that unpacking it keeps every wire."""
    (inner,) = stored(name)["definitions"]["subgraphs"]
    nodes = {node["id"]: node for node in inner["nodes"]}
    for link in inner["links"]:
        if link["origin_id"] == -10:
            assert link["id"] in inner["inputs"][link["origin_slot"]]["linkIds"]
        else:
            out = nodes[link["origin_id"]]["outputs"][link["origin_slot"]]
            assert link["id"] in out["links"] and out["type"] == link["type"]
        if link["target_id"] == -20:
            assert inner["outputs"][0]["linkIds"] == [link["id"]]
        else:
            assert nodes[link["target_id"]]["inputs"][link["target_slot"]]["link"] == link["id"]
    drawn = [
        [l["id"], l["origin_id"], l["origin_slot"], l["target_id"], l["target_slot"], l["type"]]
        for l in inner["links"]  # noqa: E741
        if l["target_id"] > 0
    ]
    x, y, *size = inner["inputNode"]["bounding"]
    own = {"id": -10, "type": "inputs", "pos": [x, y + 20], "size": size, "inputs": []}
    assert wires.hidden({"nodes": [own, *inner["nodes"]], "links": drawn}) == []


@pytest.mark.parametrize("name", [name for name in NAMES if name != "Prettier"])
def test_it_runs_with_the_demo_checkpoint(name, server):
    entry = server.wait(server.submit(prompt_of(name)), timeout=120)
    assert job.failure(entry) is None
    assert len(entry["outputs"]["saved"]["images"]) == 1


def test_the_one_whose_judge_is_missing_says_what_to_fetch(server):
    prompt = prompt_of("Prettier")
    loader = job.find(prompt, "DNOLoadRewardModel")
    prompt[loader]["inputs"]["name"] = "laion-aesthetic.safetensors"
    with pytest.raises(job.Failure, match="Download Reward Model with LAION aesthetic v2"):
        server.submit(prompt)


def test_a_stronger_strength_goes_further(server):
    reached = {}
    for strength in ("gentle", "strong"):
        prompt = prompt_of("Darker", strength=strength)
        sampler = job.find(prompt, "DNOSampler")
        plot = {"history": [sampler, 1], "width": 256, "height": 256}
        prompt["plot"] = {"class_type": "DNOHistoryPlot", "inputs": plot}
        entry = server.wait(server.submit(prompt), timeout=120)
        assert job.failure(entry) is None
        reached[strength] = entry["outputs"]["plot"]["dno"][0]["reward_best"]
    assert reached["strong"] > reached["gentle"]

"""A saved picture tells how it was made: what Save Image writes into the file, read back."""

import asyncio
import copy
import dataclasses
import io
import json
import math
import sys
import types

import pytest
import torch
from aiohttp.web import RouteTableDef
from comfy_execution.utils import CurrentNodeContext
from PIL import Image

import run
from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.nodes import DNOExtension
from ComfyUI_DNO.nodes.host import metadata
from ComfyUI_DNO.nodes.host.described import described, terms
from ComfyUI_DNO.rewards import REWARDS
from demo import job, switch

from ..support.examples import build
from .test_server import shortened

CUSTOM = switch.prompt_of("10_any_sampler_flux")
ADVANCED = "SamplerCustomAdvanced"
PROJECT = (run.ROOT / "pyproject.toml").read_text(encoding="utf-8")


def keys(prompt):
    """Where the picture after, the sampler and the plot are."""
    kinds = (("SaveImage", "after"), ("DNOSampler",), ("DNOHistoryPlot",))
    return [job.find(prompt, *kind) for kind in kinds]


def saved(client, entry, node):
    """What the PNG that a Save Image node has written holds beside its pixels."""
    assert job.failure(entry) is None
    (image,) = entry["outputs"][node]["images"]
    text = Image.open(io.BytesIO(client.image(image))).text
    return {name: json.loads(held, parse_constant=pytest.fail) for name, held in text.items()}


def submit(client, prompt, **more):
    body = {"prompt": prompt, "client_id": "dno_demo", **more}
    return client.wait(client._json("/prompt", body)["prompt_id"], timeout=120)


def cached(entry):
    messages = dict(entry["status"]["messages"])
    return set(messages["execution_cached"]["nodes"])


def test_the_dno_samplers_picture_tells_scores_settings_and_version(server):
    prompt = shortened(learning_rate=0.1, iterations=2)
    workflow = {"nodes": [], "of": "the user interface"}
    entry = submit(server, prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    after, sampler, plot = keys(prompt)
    held = saved(server, entry, after)
    assert held["workflow"] == workflow and held["prompt"] == prompt
    assert f'version = "{held["dno"]["version"]}"' in PROJECT
    note = held["dno"]["nodes"][sampler]
    (record,) = entry["outputs"][plot]["dno"]
    assert note["class_type"] == "DNOSampler"
    assert note["reward"]["start"] == [pytest.approx(record["reward_start"], abs=1e-6)]
    assert note["reward"]["best"] == [pytest.approx(record["reward_best"], abs=1e-6)]
    assert note["terms"]["darkness"] == note["reward"]
    assert note["indicators"]["P(z)"]["start"][0] == pytest.approx(record["probability_start"])
    assert note["best_iteration"] == [record["best_step"]] and note["iterations"] == 2
    assert note["sampling"]["seed"] == 107
    assert note["sampling"]["sampler_name"] == "euler_ancestral" and note["sampling"]["steps"] == 4
    assert note["settings"]["learning_rate"] == 0.1
    assert note["settings"]["optimizer"]["class"] == "Adam"
    assert note["rewards"] == {"darkness": {"weight": 1.0, "term": {"class": "Darkness"}}}
    assert note["regularizers"]["spectrum"]["term"] == {"class": "Spectrum", "tolerance": 1.5}


def test_a_picture_that_is_saved_again_tells_the_same(server):
    prompt = shortened(learning_rate=0.1, iterations=1)
    after, sampler, _ = keys(prompt)
    first = saved(server, submit(server, prompt), after)
    again = copy.deepcopy(prompt)
    again[after]["inputs"]["filename_prefix"] = "another"
    again["99"] = again.pop(sampler)  # the same node under another number
    for node in again.values():
        node["inputs"] = {
            name: ["99", value[1]] if isinstance(value, list) and value[0] == sampler else value
            for name, value in node["inputs"].items()
        }
    entry = submit(server, again)
    assert "99" in cached(entry)
    second = saved(server, entry, after)
    assert second["dno"]["nodes"]["99"] == first["dno"]["nodes"][sampler]
    other = shortened(learning_rate=0.1, iterations=1, seed=3)
    third = saved(server, submit(server, other), after)["dno"]["nodes"][sampler]
    assert third["sampling"]["seed"] == 3
    assert third["reward"] != first["dno"]["nodes"][sampler]["reward"]


def test_the_custom_samplers_picture_tells_it_of_its_own_sampling(server):
    """Also where the node that made the sampler is not run again."""
    prompt = copy.deepcopy(CUSTOM)
    climbs, sampled = (job.find(prompt, each) for each in ("DNOSamplerCustom", ADVANCED))
    prompt[climbs]["inputs"]["iterations"] = 1
    prompt[job.find(prompt, "BasicScheduler")]["inputs"]["steps"] = 3
    rewards = []
    for seed in (103, 104, 103):
        prompt[job.find(prompt, "RandomNoise")]["inputs"]["noise_seed"] = seed
        entry = submit(server, prompt)
        note = saved(server, entry, job.find(prompt, "SaveImage"))["dno"]["nodes"][sampled]
        assert note["class_type"] == ADVANCED and note["iterations"] == 1
        rewards.append(note["reward"])
        assert len(rewards) == 1 or climbs in cached(entry)
    assert rewards[0] != rewards[1] and rewards[0] == rewards[2]


def test_prompts_without_a_node_of_ours_stay_as_they_are(server):
    grey = {"width": 16, "height": 16, "batch_size": 1, "color": 0x808080}
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": grey},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    assert set(saved(server, submit(server, prompt), "2")) == {"prompt"}
    reward = {"class_type": "DNOBrightnessReward", "inputs": {"target": 1.0, "weight": 1.0}}
    score = {"class_type": "DNOScoreImages", "inputs": {"image": ["1", 0], "reward": ["3", 0]}}
    prompt |= {"3": reward, "4": score}
    prompt["2"]["inputs"]["images"] = ["4", 3]
    note = saved(server, submit(server, prompt), "2")["dno"]["nodes"]["4"]
    assert note["reward"] == note["terms"]["brightness"] == [pytest.approx(-127 / 255, abs=1e-5)]
    assert note["rewards"]["brightness"]["term"] == {"class": "Brightness", "target": 1.0}


# Without a server, as a program uses ComfyUI


class Hidden:
    def __init__(self):
        self.extra_pnginfo, self.prompt = {}, {"7": {"class_type": "DNOSampler", "inputs": {}}}


def test_without_a_server_the_page_is_the_nodes_own():
    hidden = Hidden()
    metadata.note({"reward": 1})  # nothing is executed
    with CurrentNodeContext("p", "7", 0):
        metadata.note({"reward": 1})  # nothing is known of this prompt
        metadata.begin(None)
        metadata.begin(hidden)
        metadata.note({"reward": 1})
        metadata.note({"seed": 2})
    with CurrentNodeContext("p", "7", 1):
        metadata.note({"reward": 3})
    with CurrentNodeContext("another", "7", 0):
        metadata.note({"reward": 4})
    both = {"class_type": "DNOSampler", "reward": 1, "seed": 2}
    again = {"class_type": "DNOSampler", "reward": 3}
    assert hidden.extra_pnginfo["dno"]["nodes"] == {"7": both, "7#1": again}


def test_it_listens_where_a_server_is_and_lets_strange_prompts_be(monkeypatch):
    handlers = []
    instance = types.SimpleNamespace(
        add_on_prompt_handler=handlers.append, on_prompt_handlers=handlers, routes=RouteTableDef()
    )
    module = types.SimpleNamespace(PromptServer=types.SimpleNamespace(instance=instance))
    monkeypatch.setitem(sys.modules, "server", module)
    asyncio.run(DNOExtension().get_node_list())
    asyncio.run(DNOExtension().get_node_list())
    (handler,) = handlers
    assert [each.path for each in instance.routes] == ["/dno/keep"] * 2  # to ask, and to be told
    ours = {"1": {"class_type": "DNOSampler", "inputs": {"seed": ["1", 0]}}}  # a loop
    for strange in ({}, {"prompt": None}, {"prompt": []}, {"prompt": {"1": 3}},
                    {"prompt": ours, "extra_data": {"extra_pnginfo": []}}):  # fmt: skip
        assert handler(strange) == strange or strange["prompt"] is ours
    given = {"prompt": ours, "prompt_id": "mine", "extra_data": {"x": 1}}
    assert handler(given) == given | {"extra_data": {"x": 1, "extra_pnginfo": {}}}


def test_what_led_to_a_node_is_told_apart():
    def graph(a="1", b="2", seed=3, slot=0):
        return {
            a: {"class_type": "Seed", "inputs": {"value": seed}},
            b: {"class_type": "DNOSampler", "inputs": {"seed": [a, slot], "cfg": [a, 0]}},
        }, b

    same = metadata._signature(*graph())
    assert metadata._signature(*graph("x", "y")) == same
    assert (
        len({metadata._signature(*graph(**change)) for change in ({}, {"seed": 4}, {"slot": 1})})
        == 3
    )
    deep = {"0": {"class_type": "A", "inputs": {}}}
    for number in range(1, 60):
        both = [str(number - 1), 0]
        deep[str(number)] = {"class_type": "A", "inputs": {"a": both, "b": both}}
    assert len(metadata._signature(deep, "59")) == 64


@pytest.mark.parametrize("reward", REWARDS, ids=lambda reward: reward.__name__)
def test_every_reward_is_described_in_json(reward):
    held = terms({"one": Weighted(0.5, build(reward))})
    assert json.loads(json.dumps(held, allow_nan=False)) == held
    assert held["one"]["weight"] == 0.5 and held["one"]["term"]["class"] == reward.__name__


@dataclasses.dataclass(frozen=True)
class Odd:
    size: float
    parts: tuple
    _own: int = 3


def test_what_json_has_no_word_for_is_named():
    odd = Odd(math.nan, (torch.ones(2, 3), abs, None, Odd))
    parts = ["a tensor of shape (2, 3)", "abs", None, "Odd"]
    assert described(odd) == {"class": "Odd", "size": "nan", "parts": parts}

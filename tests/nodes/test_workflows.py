"""The templates and blueprints fit the nodes that exist, in all their forms, and look tidy."""

import json
from pathlib import Path

import comfyui_version
import pytest
from PIL import Image

from demo import switch
from tools import templates
from tools.templates import wires

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = {"Note", "MarkdownNote"}  # drawn by the web UI alone
EXPECTED = set(templates.TEMPLATES)
STARTER = "01_start_here_darker"
FILES = ("ckpt_name", "name", "clip_name", "image", "vae_name")  # the user may have to fetch them
LOADERS = {
    *("CheckpointLoaderSimple", "CLIPVisionLoader", "DNOLoadRewardModel", "VAELoader"),
}
each = pytest.mark.parametrize("name", NAMES)


def interface(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def api(name: str) -> dict:
    return json.loads((FOLDER / "api" / f"{name}.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def info(server) -> dict:
    """What a real server tells the web UI about its nodes."""
    return server.object_info()


def inputs_of(described: dict) -> dict[str, list]:
    return {**described["input"].get("required", {}), **described["input"].get("optional", {})}


def widgets_of(described: dict) -> list[str]:
    """The names of a node's values in the order in which the web UI stores them."""
    names = []
    for name, (kind, *options) in inputs_of(described).items():
        if isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"):
            names.append(name)
            asked = options and options[0].get("control_after_generate")
            if asked or name in ("seed", "noise_seed"):  # the web UI adds it to these by itself
                names.append("control_after_generate")
    return names


def converted(workflow: dict, info: dict) -> dict:
    """The UI form as the web UI submits it: {id: (class type, {input: value or [node, slot]})}."""
    links = {link[0]: link for link in workflow["links"]}
    found = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        names = widgets_of(info[node["type"]])
        values = dict(zip(names, node.get("widgets_values") or [], strict=True))
        values.pop("control_after_generate", None)
        for socket in node["inputs"]:
            if socket["link"] is not None:
                values[socket["name"]] = [str(links[socket["link"]][1]), links[socket["link"]][2]]
        found[str(node["id"])] = (node["type"], values)
    return found


def test_the_promised_workflows_exist():
    assert set(NAMES) == EXPECTED
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == set(NAMES)
    assert sorted(NAMES)[0] == STARTER


@pytest.mark.skipif(
    comfyui_version.__version__ != "0.3.75", reason="core nodes have other inputs on this ComfyUI"
)
def test_files_are_what_their_descriptions_say(info):
    """`python run.py exec -- python -m tools.templates` writes them anew."""
    for path, made in templates.everything(info).items():
        found = json.loads((ROOT / path).read_text(encoding="utf-8"))
        assert found == json.loads(json.dumps(made)), f"{path} is out of date"


@each
def test_every_node_exists(name, info):
    types = {node["type"] for node in interface(name)["nodes"]} - NOTES
    assert types <= set(info)
    assert any(kind.startswith("DNOSampler") for kind in types)


@each
def test_links_join_sockets_of_one_type(name, info):
    workflow = interface(name)
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert len(nodes) == len(workflow["nodes"])
    seen = set()
    for link, source, out, target, into, kind in workflow["links"]:
        seen.add(link)
        sender, receiver = nodes[source], nodes[target]
        assert link in sender["outputs"][out]["links"]
        assert receiver["inputs"][into]["link"] == link
        given = info[sender["type"]]["output"][out]
        wanted = inputs_of(info[receiver["type"]])[receiver["inputs"][into]["name"]][0]
        assert given in wanted.split(",")
        assert kind in (given, wanted)  # an input of several types gives the link its own name
    held = [s["link"] for node in nodes.values() for s in node.get("inputs", []) if s["link"]]
    assert sorted(held) == sorted(seen)


@each
def test_sockets_are_those_of_the_nodes(name, info):
    """A node that grew an input opens all the same; one that lost an input does not."""
    for node in interface(name)["nodes"]:
        if node["type"] in NOTES:
            continue
        described = info[node["type"]]
        assert {socket["name"] for socket in node["inputs"]} <= set(inputs_of(described))
        names = [socket["name"] for socket in node["outputs"]]
        assert names == described["output_name"][: len(names)]  # newer nodes may add some
        required = described["input"].get("required", {})
        linked = {socket["name"] for socket in node["inputs"] if socket["link"] is not None}
        assert set(required) <= linked | set(widgets_of(described))


@each
def test_both_forms_are_the_same_workflow(name, info):
    stored = {key: (node["class_type"], node["inputs"]) for key, node in api(name).items()}
    assert converted(interface(name), info) == stored


@each
def test_the_server_accepts_it(name, info):
    """Values in range and of their type, by the node's own schema."""
    for node in api(name).values():
        for key, (kind, *options) in inputs_of(info[node["class_type"]]).items():
            value = node["inputs"].get(key)
            if value is None or isinstance(value, list):
                continue
            bounds = options[0] if options else {}
            if kind in ("INT", "FLOAT"):
                assert bounds.get("min", value) <= value <= bounds.get("max", value), key
            choices = kind if isinstance(kind, list) else bounds.get("options", [value])
            if kind == "COMBO" or isinstance(kind, list):
                assert value in choices or key in FILES, key


# What people have, and the demo switch


@each
def test_every_file_that_it_needs_can_be_offered(name):
    """Loaders say name, address and folder, as ComfyUI's own templates do; none is the demo's."""
    for node in interface(name)["nodes"]:
        if node["type"] not in LOADERS:
            continue
        (file,), small = node["widgets_values"][:1], node["type"] == "VAELoader"
        files = (
            [f"{file}_{part}.safetensors" for part in ("decoder", "encoder")] if small else [file]
        )
        assert len(node["properties"]["models"]) == len(files)
        for given, wanted in zip(node["properties"]["models"], files, strict=True):
            assert given["url"].startswith("https://huggingface.co/")
            assert given["url"].endswith(".safetensors") and "demo" not in given["name"]
            assert given["name"].split("/")[0] == wanted
            folders = ("vae_approx",) if small else ("checkpoints", "clip_vision", "reward_models")
            assert given["directory"] in folders


@each
def test_it_takes_the_fast_effort_unless_it_is_a_published_method(name):
    for node in api(name).values():
        if node["class_type"] in ("DNOSampler", "DNOSamplerCustom"):
            assert (node["inputs"]["iterations"], node["inputs"]["effort"]) == (-1, "fast")


@each
def test_the_demo_switch_changes_both_forms_alike(name, info):
    drawn = switch.switched(interface(name), name)
    plain = {key: (n["class_type"], n["inputs"]) for key, n in switch.prompt_of(name).items()}
    assert converted(drawn, info) == plain
    (loader,) = (n for n in drawn["nodes"] if n["type"] == "CheckpointLoaderSimple")
    assert loader["widgets_values"] == [switch.CHECKPOINT]
    files = {n["widgets_values"][0] for n in drawn["nodes"] if n["type"] == "DNOLoadRewardModel"}
    assert files <= {switch.CLIP, *switch.PRIVATE.get(name, ())}
    assert not any("models" in node["properties"] for node in drawn["nodes"])


RUN = [name for name in NAMES if name not in switch.PRIVATE]


@pytest.mark.parametrize("name", RUN)
def test_it_runs_with_the_demo_switch(name, server):
    prompt = switch.prompt_of(name)
    for node in prompt.values():
        if "effort" in node["inputs"]:
            node["inputs"]["effort"] = "one pass"
        if "steps" in node["inputs"]:
            node["inputs"]["steps"] = 3
    entry = server.wait(server.submit(prompt), timeout=120)
    assert entry["status"]["status_str"] == "success", entry["status"]["messages"][-1]


# What it looks like


def boxes_of(workflow: dict) -> dict[int, tuple]:
    return {
        node["id"]: (
            *node["pos"],
            node["pos"][0] + node["size"][0],
            node["pos"][1] + node["size"][1],
        )
        for node in workflow["nodes"]
    }


@each
def test_it_is_small(name):
    assert len(interface(name)["nodes"]) <= (10 if name == STARTER else 16)


@each
def test_nodes_do_not_overlap(name):
    boxes = list(boxes_of(interface(name)).values())
    for place, one in enumerate(boxes):
        for other in boxes[:place]:
            apart = one[0] >= other[2] or other[0] >= one[2]
            assert apart or one[1] - 30 >= other[3] or other[1] - 30 >= one[3]


@each
def test_wires_do_not_run_behind_nodes(name):
    workflow = interface(name)
    assert wires.hidden(workflow) == []


@each
def test_the_first_column_and_the_note_are_seen_at_once(name):
    """On a screen of 1440 x 900, at the scale and place that the file opens with."""
    workflow = interface(name)
    view, boxes = workflow["extra"]["ds"], boxes_of(workflow)
    first = min(box[0] for box in boxes.values())
    notes = [node["id"] for node in workflow["nodes"] if node["type"] in NOTES]
    for id, (left, top, right, bottom) in boxes.items():
        if left == first or id in notes:
            corners = (left, top - 30), (right, bottom)
            for (x, y), far in zip(corners, (False, True), strict=True):
                x, y = (
                    (v + shift) * view["scale"]
                    for v, shift in zip((x, y), view["offset"], strict=True)
                )
                assert (x <= 1440 and y <= 900) if far else (x >= 60 and y >= 130), (id, x, y)


@each
def test_a_note_says_what_to_do(name):
    notes = [node for node in interface(name)["nodes"] if node["type"] in NOTES]
    assert len(notes) == 1
    assert len(notes[0]["widgets_values"][0].splitlines()) == 3


@each
def test_a_picture_lies_beside_it(name):
    """Square, as the place that the templates browser has for it."""
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and picture.size == (512, 512)


@each
def test_nothing_of_the_maker_remains(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert not any(word in text for word in ("/work", "/tmp", "/home", "127.0.0.1"))

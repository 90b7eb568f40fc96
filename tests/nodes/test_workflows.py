"""The example workflows fit the nodes that exist, in both their forms, and each has a picture."""

import json
from pathlib import Path

import pytest
from PIL import Image

FOLDER = Path(__file__).resolve().parents[2] / "example_workflows"
NAMES = sorted(path.stem for path in FOLDER.glob("*.json"))
NOTES = {"Note", "MarkdownNote"}  # drawn by the web UI alone
EXPECTED = {
    "text_to_image_brightness",
    "before_after_side_by_side",
    "custom_sampler",
    "colour_and_contrast",
    "jpeg_compressibility",
    "palette_from_reference",
    "masked_brightness",
    "text_similarity",
    "style_from_image",
    "reno_mixture",
    "aesthetic_sdxl",
}
FILES = ("ckpt_name", "name")  # the user may have to fetch them: the note says which
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
    assert set(NAMES) >= EXPECTED
    assert {path.stem for path in (FOLDER / "api").glob("*.json")} == set(NAMES)


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


@each
def test_nodes_do_not_overlap(name):
    boxes = []
    for node in interface(name)["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        height = 0 if node["flags"].get("collapsed") else height
        boxes.append((x, y - 30, x + width, y + height))
    for place, one in enumerate(boxes):
        for other in boxes[:place]:
            apart = one[0] >= other[2] or other[0] >= one[2]
            assert apart or one[1] >= other[3] or other[1] >= one[3]


@each
def test_a_note_says_what_to_do(name):
    notes = [node for node in interface(name)["nodes"] if node["type"] in NOTES]
    assert len(notes) == 1
    assert len(notes[0]["widgets_values"][0].splitlines()) == 3


@each
def test_a_picture_lies_beside_it(name):
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size < 200_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG" and min(picture.size) >= 256


@each
def test_nothing_of_the_maker_remains(name):
    text = (FOLDER / f"{name}.json").read_text(encoding="utf-8")
    assert not any(word in text for word in ("/work", "/tmp", "/home", "127.0.0.1"))

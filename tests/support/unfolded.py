"""A subgraph blueprint as ComfyUI runs it: what the web UI submits for its one node."""

from collections.abc import Mapping

WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


def unfolded(workflow: Mapping, given: Mapping, prefix: str = "in") -> dict:
    """The blueprint's inner nodes in the API's form.

    given: name of an input of the blueprint -> a link to what feeds it; those that are not given
    hold what its one node shows.
    """
    (outer,) = workflow["nodes"]
    (inner,) = workflow["definitions"]["subgraphs"]
    assert outer["type"] == inner["id"]
    shown = iter(outer["widgets_values"])
    held = {
        socket["name"]: next(shown) if socket.get("widget") else given[socket["name"]]
        for socket in outer["inputs"]
    } | dict(given)
    links = {link["id"]: link for link in inner["links"]}
    names = [socket["name"] for socket in inner["inputs"]]
    prompt = {}
    for node in inner["nodes"]:
        if node["type"] == "MarkdownNote":
            continue
        inputs = values_of(node)
        for socket in node["inputs"]:
            if socket["link"] is not None:
                link = links[socket["link"]]
                origin, slot = link["origin_id"], link["origin_slot"]
                value = held[names[slot]] if origin == -10 else [f"{prefix}{origin}", slot]
                inputs[socket["name"]] = value
        prompt[f"{prefix}{node['id']}"] = {"class_type": node["type"], "inputs": inputs}
    (last,) = (link for link in inner["links"] if link["target_id"] == -20)
    saved = {"images": [f"{prefix}{last['origin_id']}", last["origin_slot"]]}
    prompt["saved"] = {"class_type": "SaveImage", "inputs": saved | {"filename_prefix": "made"}}
    return prompt


def values_of(node: Mapping) -> dict:
    values = list(node["widgets_values"])
    found = {}
    for socket in node["inputs"]:
        if socket.get("widget"):
            found[socket["name"]] = values.pop(0)
            if socket["name"] in ("seed", "noise_seed"):
                values.pop(0)
    return found

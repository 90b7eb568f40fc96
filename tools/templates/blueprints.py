"""Subgraph blueprints: one node with a prompt, a strength and a speed, that can be unpacked."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from .models import SD15, VISION
from .page import ROOF, WIDE, Page
from .sheet import PACK, VERSION, Node, Output, kind_of, slot_of

LOWER = 110  # pixels: a judge stands under the wires to the reward beside it
INSIDE, OUTSIDE = -10, -20  # ids of a subgraph's own inputs and outputs
MODEL = replace(SD15, size=768, cfg=6.0)  # what most models can do
ASKED = {"prompt": "STRING", "strength": "COMBO", "speed": "COMBO"}
SHOWN = {"prompt": "a lighthouse on a cliff by the sea", "strength": "brisk", "speed": "fast"}
NOTE = (
    "Size, steps, cfg and sampler suit most models; set them here to what yours likes: cfg 1 and "
    "4 to 8 steps for distilled ones, 512 pixels for SD 1.5, 1024 for SDXL."
)


def darker(page: Page, place: float) -> Output:
    return page.put(1, place, "DNODarknessReward")["reward"]


def brighter(page: Page, place: float) -> Output:
    return page.put(1, place, "DNOBrightnessReward")["reward"]


def prettier(page: Page, place: float) -> Output:
    judge = page.judge(0, place + LOWER, "laion-aesthetic.safetensors", "LAION aesthetic v2")
    return page.put(1, place, "DNOAestheticReward", model=judge)["reward"]


def like_picture(page: Page, place: float) -> Output:
    more = {"encoder": page.vision(0, place + LOWER, VISION), "reference": page.loader["image"]}
    return page.put(1, place, "DNOImageSimilarityReward", **more)["reward"]


def closer(page: Page, place: float) -> Output:
    judge = page.judge(0, place + LOWER, "clip-vit-large-patch14", "CLIP ViT-L/14")
    more = {"model": judge, "prompt": page.loader["prompt"]}
    return page.put(1, place, "DNOCLIPTextSimilarityReward", **more)["reward"]


def seamless(page: Page, place: float) -> Output:
    return page.put(1, place, "DNOTilingReward")["reward"]


def small_file(page: Page, place: float) -> Output:
    return page.put(1, place, "DNOJPEGCompressibilityReward")["reward"]


BLUEPRINTS: dict[str, tuple[Callable[[Page, float], Output], str, str]] = {
    # name, which the web UI shows -> reward, description, prompt
    "Darker": (darker, "Your prompt as a darker picture.", "a lighthouse by the sea"),
    "Brighter": (brighter, "Your prompt as a brighter picture.", "a lighthouse by the sea"),
    "Prettier": (
        prettier,
        "Your prompt as a more beautiful picture, by LAION's aesthetic predictor.",
        "a lighthouse by the sea",
    ),
    "More like this picture": (
        like_picture,
        "Your prompt, closer to what a picture of yours shows; by CLIP Vision.",
        "a portrait of a cat",
    ),
    "Closer to the prompt": (
        closer,
        "A picture that shows more of what the prompt says, by CLIP.",
        "a red book and a blue cup on a table",
    ),
    "Seamless texture": (
        seamless,
        "A texture whose borders meet when it is tiled.",
        "mossy cobblestones from above, texture",
    ),
    "Small file": (
        small_file,
        "A calm picture that makes a small JPEG.",
        "a red fox in the snow, flat illustration",
    ),
}


def blueprint(name: str, info: Mapping) -> dict:
    """A workflow of one node, which is a subgraph: what ComfyUI loads from subgraphs/."""
    reward, description, prompt = BLUEPRINTS[name]
    taken = {"model": "MODEL", "clip": "CLIP", "vae": "VAE"}
    if reward is like_picture:
        taken["image"] = "IMAGE"
    taken |= ASKED
    shown = {**SHOWN, "prompt": prompt}
    page = Page(info, MODEL)
    names = {**{n: n for n in taken}, "model": "MODEL", "clip": "CLIP", "vae": "VAE"}
    described = {"output_name": list(names.values()), "output": list(taken.values()), "input": {}}
    page.loader = Node(INSIDE, "", described, shown)
    asked = page.words(1, 150, page.loader["prompt"])
    way = page.below(
        page.last,
        "DNOStrength",
        strength=page.loader["strength"],
        speed=page.loader["speed"],
    )
    given = reward(page, page.next(way))
    page.advice(0, -400, NOTE, 180)
    sampler = page.sampler(2, 1, **asked, reward=given, options=way["options"])
    sampler.after_run = "randomize"
    more = {"samples": sampler["latent"], "vae": page.loader["VAE"]}
    decode = page.add("VAEDecode", (page.x(3) + 40, ROOF), (WIDE, 0), **more)
    inner = subgraph(name, page, taken, decode["IMAGE"])
    return outer(inner, taken, shown, description)


def subgraph(name: str, page: Page, taken: Mapping[str, str], image: Output) -> dict:
    """The definition: the page, with wires from its inputs and to its one output."""
    wires = page.wires()
    links = [link(id, out, node.id, slot_of(node, into)) for id, out, node, into in wires]
    last = len(links) + 1
    links.append(link(last, image, OUTSIDE, 0))
    drawn = page.interface()["nodes"]
    for node in drawn:
        if node["id"] == image.node.id:
            node["outputs"][image.slot]["links"] = [last]
    output = {"id": identity(name, "image out"), "name": "image", "type": "IMAGE"}
    output |= {"linkIds": [last], "pos": [page.x(4) + 120, ROOF + 20]}
    state = {"lastGroupId": 0, "lastNodeId": len(drawn), "lastLinkId": last, "lastRerouteId": 0}
    return {
        "id": identity(name, "subgraph"),
        "version": 1,
        "state": state,
        "revision": 0,
        "config": {},
        "name": name,
        "inputNode": {"id": INSIDE, "bounding": [-240, ROOF - 20, 120, 60 + 20 * len(taken)]},
        "outputNode": {"id": OUTSIDE, "bounding": [page.x(4) + 100, ROOF, 120, 60]},
        "inputs": entrances(name, taken, wires),
        "outputs": [output],
        "widgets": [],
        "nodes": drawn,
        "groups": [],
        "links": links,
        "extra": {"workflowRendererVersion": "LG"},
    }


def link(id: int, out: Output, target: int, slot: int) -> dict:
    """A wire from an output to an input, as the web UI writes it."""
    return {
        "id": id,
        "origin_id": out.node.id,
        "origin_slot": out.slot,
        "target_id": target,
        "target_slot": slot,
        "type": kind_of(out),
    }


def entrances(name: str, taken: Mapping[str, str], wires: Sequence[tuple]) -> list[dict]:
    """The subgraph's own inputs, with the wires that go out from each."""
    return [
        {
            "id": identity(name, key),
            "name": key,
            "type": kind,
            "linkIds": [i for i, out, *_ in wires if (out.node.id, out.slot) == (INSIDE, slot)],
            "pos": [-120, ROOF + 20 * slot],
        }
        for slot, (key, kind) in enumerate(taken.items())
    ]


def outer(inner: dict, taken: Mapping[str, str], shown: Mapping[str, str], description) -> dict:
    """The workflow of one node that is the blueprint."""
    inputs = []
    for key, kind in taken.items():
        socket: dict = {"name": key, "type": kind, "link": None}
        inputs.append(socket | ({"widget": {"name": key}} if key in ASKED else {}))
    node = {
        "id": 1,
        "type": inner["id"],
        "pos": [0, 0],
        "size": [WIDE, 260],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": inputs,
        "outputs": [{"name": "image", "type": "IMAGE", "links": None}],
        "title": inner["name"],
        "properties": {"cnr_id": PACK, "ver": VERSION},
        "widgets_values": [shown[key] for key in ASKED],
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [node],
        "links": [],
        "groups": [],
        "definitions": {"subgraphs": [inner]},
        "config": {},
        "extra": {"BlueprintDescription": description, "workflowRendererVersion": "LG"},
        "version": 0.4,
    }


def identity(*words: str) -> str:
    """An id that is the same every time."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, "/".join((PACK, *words))))

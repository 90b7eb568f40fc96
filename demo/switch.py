"""The demo switch: a template of example_workflows/ with the demo checkpoint and its settings.

    python demo/switch.py FOLDER        all templates so, for the web UI, into FOLDER

The templates start on checkpoints that people have. `python run.py ui` shows them switched in the
sidebar's Workflows; the demo, the tests and the benchmarks run them switched. A template whose
judge has no stand-in here keeps that judge: PRIVATE says which. The demo's decoder is small: it
stands in for a small one.
"""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path

TEMPLATES = Path(__file__).resolve().parent.parent / "example_workflows"
CHECKPOINTS, VAE, SMALL = "CheckpointLoaderSimple", 2, "VAELoader"  # a node, its output, a node
CHECKPOINT, CLIP = "dno_demo.safetensors", "dno_demo_clip.safetensors"
SIDE = {"width": 128, "height": 128}
SAMPLING = {"steps": 8, "cfg": 3.0, "sampler_name": "euler_ancestral", "scheduler": "normal"}
PUT = {  # class -> values of its widgets
    CHECKPOINTS: {"ckpt_name": CHECKPOINT},
    "EmptyLatentImage": SIDE,
    "EmptySD3LatentImage": SIDE,
    "KSampler": SAMPLING,
    "DNOSampler": SAMPLING,
    "CFGGuider": {"cfg": 3.0},
    "KSamplerSelect": {"sampler_name": "euler_ancestral"},
    "BasicScheduler": {"steps": 8, "scheduler": "normal"},
}
PROMPTS = {  # template -> what the demo's model knows, and a seed
    "01_start_here_darker": ("a penguin", 107),
    "02_prettier": ("a rose", 1),
    "03_closer_to_the_prompt": ("a car on a blue background", 7),
    "04_style_of_a_picture": ("a cat", 3),
    "05_colours_of_a_picture": ("a cupcake", 1),
    "06_colour_and_contrast": ("a castle", 106),
    "07_light_in_one_place": ("a snowman", 3),
    "08_small_file": ("a penguin", 3),
    "09_side_by_side_and_film": ("a rocket", 105),
    "10_any_sampler_flux": ("a ghost", 103),
    "11_several_judges": ("a dog", 0),
    "12_small_decoder": ("a castle", 103),
}
ASKED = {"03_closer_to_the_prompt": "a car"}  # of the model, where the reward asks for more
STARTER = "01_start_here_darker"
DRAWING = ("model", "positive", "negative", "latent_image", "seed", "steps", "cfg")
DRAWING += ("sampler_name", "scheduler", "denoise")  # KSampler's inputs, which the sampler shares
SHOWN = ("PreviewImage", "DNOHistoryPlot")  # what a template may end in, besides a saved picture
PRIVATE = {  # template -> its judges, for which the demo's CLIP does not stand in
    "02_prettier": ("laion-aesthetic.safetensors",),
    "11_several_judges": ("HPSv2.1.safetensors", "ImageReward.safetensors", "PickScore_v1"),
}


def switched(workflow: dict, name: str) -> dict:
    """A template with the demo's model, in the form it is given in: the web UI's or the API's."""
    made = copy.deepcopy(workflow)
    if "nodes" in made:
        exchanged = {node["id"] for node in made["nodes"] if _switch_drawn(node, name)}
        for link in made["links"]:
            if link[1] in exchanged:
                link[5] = "DNO_REWARD_MODEL"
        _put_small_decoder_drawn(made)
        return made
    _put_small_decoder(made)
    for node in made.values():
        title = node.get("_meta", {}).get("title")
        node["class_type"], node["inputs"] = _changed(
            name, node["class_type"], title, node["inputs"]
        )
    return made


def _put_small_decoder(prompt: dict) -> None:
    """The checkpoint's VAE in the place of another that is loaded; in the API's form."""
    kinds = {node["class_type"]: key for key, node in prompt.items()}
    if SMALL not in kinds:
        return
    del prompt[kinds[SMALL]]
    for node in prompt.values():
        for name, value in node["inputs"].items():
            if value == [kinds[SMALL], 0]:
                node["inputs"][name] = [kinds[CHECKPOINTS], VAE]


def _put_small_decoder_drawn(workflow: dict) -> None:
    """The same in the web UI's form."""
    nodes = {node["type"]: node for node in workflow["nodes"]}
    if SMALL not in nodes:
        return
    small, loader = nodes[SMALL], nodes[CHECKPOINTS]
    workflow["nodes"].remove(small)
    for link in workflow["links"]:
        if link[1] == small["id"]:
            link[1:3] = loader["id"], VAE
            loader["outputs"][VAE]["links"] = [*(loader["outputs"][VAE]["links"] or ()), link[0]]


def _changed(name: str, kind: str, title: str | None, inputs: dict) -> tuple[str, dict]:
    """A node's class and inputs with the demo put in; what is linked (a list) stays."""
    if kind == "CLIPVisionLoader":
        return "DNOLoadRewardModel", {"name": CLIP, "precision": "automatic"}
    prompt, seed = PROMPTS[name]
    put = dict(PUT.get(kind, {}))
    if kind in ("KSampler", "DNOSampler", "RandomNoise"):
        put |= {"seed": seed, "noise_seed": seed}
    if kind == "DNOLoadRewardModel" and inputs["name"] not in PRIVATE.get(name, ()):
        put["name"] = CLIP
    if title in ("Prompt", "Prompt for both", "Prompt for all"):
        put |= {"text": prompt, "value": prompt}
    if title == "Negative prompt":
        put["text"] = ""
    own = {key for key, value in inputs.items() if not isinstance(value, list)}
    return kind, inputs | {key: value for key, value in put.items() if key in own}


def _switch_drawn(node: dict, name: str) -> bool:
    """Switch one node of the web UI's form; whether it became one of another class."""
    values, places = {}, {}
    for socket in node["inputs"]:
        if socket.get("widget"):
            key = socket["name"]
            places[key] = len(places) + sum(seed in places for seed in ("seed", "noise_seed"))
            values[key] = node["widgets_values"][places[key]]
    kind, values = _changed(name, node["type"], node.get("title"), values)
    node["properties"].pop("models", None)
    if kind == node["type"]:
        for key, place in places.items():
            node["widgets_values"][place] = values[key]
        return False
    node["type"], node["widgets_values"] = kind, list(values.values())
    node["properties"] = {"Node name for S&R": kind}
    node["inputs"] = [
        {"name": key, "type": "COMBO", "widget": {"name": key}, "link": None} for key in values
    ]
    node["outputs"][0] |= {"name": "reward_model", "type": "DNO_REWARD_MODEL"}
    return True


def prompt_of(name: str) -> dict:
    """A template in the API's form, switched."""
    text = (TEMPLATES / "api" / f"{name}.json").read_text(encoding="utf-8")
    return switched(json.loads(text), name)


def asking_less(name: str) -> dict:
    """`prompt_of`; where a reward asks for what the model draws anyway, the model is asked less."""
    prompt = prompt_of(name)
    for node in prompt.values():
        if name in ASKED and node["_meta"]["title"] == "Prompt":
            node["inputs"]["text"] = ASKED[name]
    return prompt


def recorded(name: str = STARTER) -> dict:
    """One that saves the picture before and after and the plot, for the demo.

    It climbs by exact gradients, 24 times, with Spectrum: what a small model on a processor can do.
    """
    prompt = asking_less(name)
    kept = {key: node for key, node in prompt.items() if node["class_type"] not in SHOWN}
    by_class = {node["class_type"]: key for key, node in kept.items()}
    key, saved = by_class["DNOSampler"], kept[by_class["SaveImage"]]
    sampler = kept[key]
    sampler["_meta"] = {"title": "DNO Sampler: after"}
    sampler["inputs"] |= {"iterations": 24, "regularizer": ["101", 0]}
    saved["inputs"]["filename_prefix"] = "dno_demo/after"
    plain = {each: sampler["inputs"][each] for each in DRAWING}
    decoding = {"samples": ["102", 0], "vae": sampler["inputs"]["vae"]}
    before = {"images": ["103", 0], "filename_prefix": "dno_demo/before"}
    drawn = {"history": [key, 1], "width": 768, "height": 512}
    history = {"images": ["105", 0], "filename_prefix": "dno_demo/history"}
    more = {
        "101": ("DNOSpectrumRegularizer", "Spectrum", {"tolerance": 1.5, "weight": 1.0}),
        "102": ("KSampler", "KSampler: before", plain),
        "103": ("VAEDecode", "Decode before", decoding),
        "104": ("SaveImage", "Before", before),
        "105": ("DNOHistoryPlot", "Plot", drawn),
        "106": ("SaveImage", "Plot saved", history),
    }
    for added, (kind, title, inputs) in more.items():
        kept[added] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    return kept


def texts() -> dict[str, str]:
    """File name -> a template in the web UI's form, switched: all of them."""
    found = {}
    for path in sorted(TEMPLATES.glob("*.json")):
        made = switched(json.loads(path.read_text(encoding="utf-8")), path.stem)
        found[path.name] = json.dumps(made, indent=2) + "\n"
    return found


def written(folder: Path) -> Path:
    """All of them in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("Say where to: python demo/switch.py FOLDER")
    print(f"The templates with the demo's model are in {written(Path(sys.argv[1]))}.")

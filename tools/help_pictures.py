"""Make the pictures of the help pages again, by one command: web/docs/NODE.jpg for each NODE.md.

    python run.py exec -- python tools/help_pictures.py [--only WORDS]

A reward that the demo's model can climb shows one picture before and after it, the same seed for
all; any other node, a modifier of rewards too, shows itself as the web UI draws it. Each page gets
the line with its picture. Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import run  # noqa: E402
from demo import job, switch  # noqa: E402
from tools import browser, server  # noqa: E402

DOCS = ROOT / "web" / "docs"
SIDE, GAP = 144, 8  # pixels of a picture, and between two: the help panel is 300 wide
SHOWN_BY = {"DNOCLIPTextSimilarityReward": "03_closer_to_the_prompt"}  # a template's picture
FED = {  # socket -> the node that feeds it, with its inputs
    "DNO_REWARD_MODEL": ("DNOLoadRewardModel", {"name": switch.CLIP, "precision": "automatic"}),
    "IMAGE": ("LoadImage", {"image": server.EXAMPLE}),
}
NOT_HERE = (  # a network of their own, or pictures of other seeds
    *("Aesthetic", "HPSv2", "HPSv3", "ImageRewardReward", "LRM", "MPS", "PickScore", "VQA"),
    "Normalise",
)
DRAWN = """type => {
    const graph = window.app.graph
    graph.clear()
    const node = LiteGraph.createNode(type)
    graph.add(node)
    node.pos = [0, 0]
    const ds = window.app.canvas.ds
    ds.scale = 1
    ds.offset = [320, 220]
    window.app.canvas.setDirty(true, true)
    return [node.size[0], node.size[1] + LiteGraph.NODE_TITLE_HEIGHT]
}"""
"""A node by itself on the canvas, at (320, 220); its size with its title."""


def climbed(client: job.Client, kind: str, inputs: dict) -> tuple[list[Image.Image], str]:
    """The demo's picture before and after a fast climb of this reward, and its prompt."""
    prompt = switch.recorded(SHOWN_BY.get(kind, switch.STARTER))
    sampler = prompt[job.find(prompt, "DNOSampler")]["inputs"]
    sampler |= {"iterations": -1, "effort": "fast"}
    if kind not in SHOWN_BY:
        reward = {"class_type": kind, "inputs": dict(inputs)}
        for index, (name, value) in enumerate(inputs.items()):
            if isinstance(value, tuple):
                feeding, given = value
                prompt[str(300 + index)] = {"class_type": feeding, "inputs": given}
                reward["inputs"][name] = [str(300 + index), 0]
        prompt["200"], sampler["reward"] = reward, ["200", 0]
    entry = client.wait(client.submit(prompt))
    if sentence := job.failure(entry):
        raise job.Failure(sentence)
    pictures = [
        Image.open(io.BytesIO(job.picture(client, prompt, entry, name))).convert("RGB")
        for name in ("before", "after")
    ]
    return pictures, job.report(prompt, entry)["prompt"]


def drawing(kind: str, described: dict, client: job.Client, web: browser.Web) -> tuple:
    """A node's picture, and what it shows in words."""
    given = inputs_of(kind, described)
    if given is None:
        return drawn(web, kind), "The node"
    pictures, prompt = climbed(client, kind, given)
    return pair(pictures), f"{prompt}, before and after".capitalize()


def inputs_of(kind: str, described: dict) -> dict | None:
    """What a reward's node is given; None where something is missing here."""
    if not kind.endswith("Reward") or any(name in kind for name in NOT_HERE):
        return None
    found = {}
    for name, (type_, *options) in described["input"].get("required", {}).items():
        feeding = [FED[each] for each in str(type_).split(",") if each in FED]
        if feeding:
            found[name] = feeding[0]
        elif options and "default" in options[0]:
            found[name] = options[0]["default"]
        else:
            return None
    return found


def pair(pictures: list[Image.Image]) -> Image.Image:
    """Before and after, side by side on white."""
    sheet = Image.new("RGB", (2 * SIDE + GAP, SIDE), "white")
    for index, picture in enumerate(pictures):
        small = picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        sheet.paste(small, (index * (SIDE + GAP), 0))
    return sheet


def drawn(web: browser.Web, kind: str) -> Image.Image:
    """The node alone, as the canvas shows it."""
    width, height = web.page.evaluate(DRAWN, kind)
    web.page.wait_for_timeout(400)
    box = web.page.locator("#graph-canvas").bounding_box()
    left, top = box["x"] + 320 - 6, box["y"] + 220 - 36
    cut = {"x": left, "y": top, "width": width + 12, "height": height + 12}
    return Image.open(io.BytesIO(web.page.screenshot(clip=cut))).convert("RGB")


def write(kind: str, picture: Image.Image, says: str) -> None:
    """The picture, and its line below the page's first paragraph."""
    picture.save(DOCS / f"{kind}.jpg", quality=82, optimize=True)
    page = DOCS / f"{kind}.md"
    title, first, *rest = page.read_text(encoding="utf-8").split("\n\n")
    if rest and rest[0].startswith("!["):
        rest = rest[1:]
    text = "\n\n".join([title, first, f"![{says}]({kind}.jpg)", *rest])
    page.write_text(text, encoding="utf-8")
    print(f"web/docs/{kind}.jpg: {says}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="nodes whose name has this")
    parser.add_argument("--missing", action="store_true", help="pages without a picture alone")
    arguments = parser.parse_args()
    if reason := browser.missing():
        sys.exit(f"There is {reason}.")
    home = run.Home.of(ROOT / ".comfyui")
    run.demo_checkpoint(home)
    kinds = [path.stem for path in sorted(DOCS.glob("*.md")) if arguments.only in path.stem]
    if arguments.missing:
        kinds = [kind for kind in kinds if not (DOCS / f"{kind}.jpg").exists()]
    with run.server(home, home.root / "pictures") as client:
        described = client._json("/object_info")
        with browser.opened(client.address) as web:
            for kind in kinds:
                write(kind, *drawing(kind, described[kind], client, web))


if __name__ == "__main__":
    main()

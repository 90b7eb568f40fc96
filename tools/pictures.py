"""Make the pictures of the templates again, and of the whole web UI, by one command.

    python run.py exec -- python tools/pictures.py              example_workflows/*.jpg
    python run.py exec -- python tools/pictures.py --screens F  and screenshots into the folder F

A template that the demo's model can run shows what it made: the picture after, with the one before
in its corner. One whose judges have to be fetched shows its nodes. Needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from pathlib import Path

from PIL import Image, ImageOps

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import run  # noqa: E402
from demo import job, switch  # noqa: E402
from tools import browser, server  # noqa: E402

SIDE, INSET, EDGE = 512, 168, 6  # pixels: a thumbnail, the picture in its corner, its white edge
FOLDER = ROOT / "example_workflows"
CLOSE_UP = """() => {
    const ds = window.app.canvas.ds
    ds.scale = 0.8
    ds.offset = [100, 355]
    window.app.canvas.setDirty(true, true)
}"""  # the first three columns of a template


def made(client: job.Client, name: str, iterations: int) -> Image.Image:
    """What a template draws with the demo's model: 0 iterations is the picture before."""
    prompt = switch.asking_less(name)
    for node in prompt.values():
        if "iterations" in node["inputs"]:
            node["inputs"]["iterations"] = iterations
    saved = {"images": [job.find(prompt, "VAEDecode"), 0], "filename_prefix": "picture"}
    kept = {key: node for key, node in prompt.items() if node["class_type"] not in OUTPUTS}
    kept["900"] = {"class_type": "SaveImage", "inputs": saved}
    entry = client.wait(client.submit(kept))
    if sentence := job.failure(entry):
        raise job.Failure(sentence)
    return Image.open(io.BytesIO(client.image(entry["outputs"]["900"]["images"][0])))


OUTPUTS = {"SaveImage", "SaveAnimatedWEBP", "PreviewImage", "DNOHistoryPlot"}


def thumbnail(after: Image.Image, corners: list[Image.Image]) -> Image.Image:
    """The picture, as large as its place; others in its lower corners, left first."""
    picture = after.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    for place, corner in enumerate(corners):
        small = corner.convert("RGB").resize((INSET, INSET), Image.Resampling.LANCZOS)
        small = ImageOps.expand(small, EDGE, "white")
        left = (SIDE - small.width) * place
        picture.paste(small, (left, SIDE - small.height))
    return picture


def write(picture: Image.Image, name: str) -> None:
    picture.save(FOLDER / f"{name}.jpg", quality=88, optimize=True)
    print(f"example_workflows/{name}.jpg", flush=True)


def results(client: job.Client, names: list[str]) -> None:
    for name in names:
        before, after = made(client, name, 0), made(client, name, -1)
        corners = [before]
        if any(node["class_type"] == "LoadImage" for node in switch.prompt_of(name).values()):
            corners.append(Image.open(server.REFERENCE))
        write(thumbnail(after, corners), name)


def nodes(address: str, names: list[str]) -> None:
    """Templates that cannot run here, drawn by the web UI, cut to a square."""
    with browser.opened(address, (1000, 1000)) as web:
        web.set("Comfy.Workflow.ShowMissingModelsWarning", False)
        for name in names:
            web.open(template(name), name)
            web.page.evaluate(CLOSE_UP)
            web.page.wait_for_timeout(1000)
            shot = Image.open(io.BytesIO(web.page.screenshot())).convert("RGB")
            picture = shot.crop((70, 130, 930, 990))
            write(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS), name)
        web.set("Comfy.Workflow.ShowMissingModelsWarning", True)


def screens(address: str, folder: Path) -> None:
    """Every template as it opens on a screen of 1440 x 900, in both renderers."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser.opened(address) as web:
        web.set("Comfy.Workflow.ShowMissingModelsWarning", False)
        for renderer, vue in (("classic", False), ("nodes2", True)):
            web.set(browser.VUE, vue)
            for path in sorted(FOLDER.glob("*.json")):
                web.open(template(path.stem), path.stem)
                web.page.wait_for_timeout(700)
                web.page.screenshot(path=folder / f"{path.stem}_{renderer}.png")
        web.set(browser.VUE, False)


def template(name: str) -> dict:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--screens", type=Path, help="a folder for screenshots of all templates")
    parser.add_argument("--only", default="", help="templates whose name has this")
    parser.add_argument("--no-thumbnails", action="store_true")
    arguments = parser.parse_args()
    if reason := browser.missing():
        sys.exit(f"There is {reason}.")
    home = run.Home.of(ROOT / ".comfyui")
    run.demo_checkpoint(home)
    names = [name for name in switch.PROMPTS if arguments.only in name]
    with run.server(home, home.root / "pictures") as client:
        if not arguments.no_thumbnails:
            results(client, [name for name in names if name not in switch.PRIVATE])
            nodes(client.address, [name for name in names if name in switch.PRIVATE])
        if arguments.screens:
            screens(client.address, arguments.screens)


if __name__ == "__main__":
    main()

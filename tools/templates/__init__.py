"""The example workflows and the subgraph blueprints, written from short descriptions."""

from __future__ import annotations

from collections.abc import Mapping

from . import judged, tone
from .blueprints import BLUEPRINTS, blueprint

TEMPLATES = {  # name, which is the title that the web UI shows -> what makes it
    "01_start_here_darker": tone.darker,
    "02_prettier": judged.prettier,
    "03_closer_to_the_prompt": judged.closer,
    "04_style_of_a_picture": judged.style,
    "05_colours_of_a_picture": tone.colours,
    "06_colour_and_contrast": tone.mixture,
    "07_light_in_one_place": tone.places,
    "08_small_file": tone.small_file,
    "09_side_by_side_and_film": tone.side_by_side,
    "10_any_sampler_flux": tone.any_sampler,
    "11_several_judges": judged.judges,
    "12_small_decoder": tone.small_decoder,
}
WINDOW = (1340, 740)  # pixels of the canvas that bars leave free at 1440 x 900
EDGE = (80, 140)  # pixels: where the first node's corner goes


def everything(info: Mapping) -> dict[str, dict]:
    """Path in the checkout -> what the file holds. info: a server's account of its nodes."""
    made = {}
    for name, make in TEMPLATES.items():
        page = make(info)
        made[f"example_workflows/{name}.json"] = page.interface(view(page))
        made[f"example_workflows/api/{name}.json"] = page.api()
    for name in BLUEPRINTS:
        made[f"subgraphs/{name}.json"] = blueprint(name, info)
    return made


def view(page) -> dict:
    """The scale and offset at which the whole sheet fits the window, but no smaller than 0.6."""
    boxes = [(node.pos, node.size) for node in page.nodes]
    boxes += [(pos, size) for _, pos, size in page.notes]
    left = min(pos[0] for pos, _ in boxes)
    top = min(pos[1] for pos, _ in boxes) - 30
    right = max(pos[0] + size[0] for pos, size in boxes)
    bottom = max(pos[1] + size[1] for pos, size in boxes)
    scale = min(1.0, WINDOW[0] / (right - left), WINDOW[1] / (bottom - top))
    scale = max(0.6, round(scale, 2))  # below, the web UI draws no words
    return {"scale": scale, "offset": [EDGE[0] / scale - left, EDGE[1] / scale - top]}

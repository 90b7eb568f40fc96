"""What happened during a run, to look at: the plot, and the pictures of the evolution."""

from __future__ import annotations

import math

import numpy as np
import torch
from comfy_api.latest import io, ui
from PIL import Image, ImageDraw
from torch import Tensor

from ..dno.history import History
from .drawing.canvas import font, number
from .drawing.plot import plot
from .host.web import say
from .schema import CATEGORY, HistorySocket, drawn, schema, to_bhwc

PROBABILITY = "P(z)"


class DNOHistoryPlot(io.ComfyNode):
    """Draws how the reward, its terms and the noise's health went, and marks the best iteration."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        size = {"min": 256, "max": 4096, "step": 8}
        return schema(
            node_id="DNOHistoryPlot",
            display_name="DNO History Plot",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "chart", "graph", "curve", "reward"],
            is_output_node=True,
            inputs=[
                HistorySocket.Input("history", tooltip="From the DNO Sampler."),
                io.Int.Input(
                    "width", default=768, **size,
                    tooltip="Width of the plot in pixels; letters and lines grow with it.",
                ),
                io.Int.Input("height", default=512, **size, tooltip="Its height in pixels."),
            ],
            outputs=[
                io.Image.Output(display_name="plot", tooltip="The plot, also shown on the node."),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, history: History, width: int, height: int) -> io.NodeOutput:
        image = drawn(plot(history, width, height))
        text = summary(history)
        say(text)
        preview = ui.PreviewImage(image, cls=cls).as_dict()
        return io.NodeOutput(image, ui={**preview, "text": [text], "dno": [numbers(history)]})


class DNOHistoryFrames(io.ComfyNode):
    """The pictures of one image's evolution, for an animation or a contact sheet."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOHistoryFrames",
            display_name="DNO History Frames",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "animation", "film", "evolution", "video"],
            inputs=[
                HistorySocket.Input("history", tooltip="From the DNO Sampler."),
                io.Int.Input(
                    "every", default=1, min=1, max=10000,
                    tooltip="One picture for so many iterations: 1 gives all of them.",
                ),
                io.Int.Input(
                    "maximum", default=100, min=1, max=10000,
                    tooltip="At most so many pictures, spread evenly from the first to the last.",
                ),
                io.Int.Input(
                    "image", default=0, min=0, max=4095,
                    tooltip="Which image of the batch; the first is 0.",
                ),
                io.Boolean.Input(
                    "caption", default=False,
                    tooltip="Write the iteration and the reward into the lower left corner.",
                ),
            ],
            outputs=[io.Image.Output(display_name="frames", tooltip="The pictures in order.")],
        )  # fmt: skip

    @classmethod
    def execute(
        cls, history: History, every: int, maximum: int, image: int, caption: bool
    ) -> io.NodeOutput:
        film = history.film.images
        if not film:
            raise ValueError("The history holds no pictures: nothing was sampled.")
        batch = len(next(iter(film.values())))
        if image >= batch:
            held = "one image, number 0" if batch == 1 else f"images 0 to {batch - 1}"
            raise ValueError(f"The history holds {held}: there is no image {image}.")
        steps = chosen(sorted(film), every, maximum)
        frames = torch.stack([film[step][image] for step in steps])
        if caption:
            rewards = {record.step: float(record.reward[image]) for record in history.records}
            words = [f"{step}   {number(rewards[step])}" for step in steps]
            frames = torch.stack([captioned(*pair) for pair in zip(frames, words, strict=True)])
        count = f"{len(steps)} of {len(history.records)} pictures"
        text = f"{count}: iterations {steps[0]} to {steps[-1]}."
        if history.film.stride > 1:
            text += f" To save memory, one picture in {history.film.stride} iterations was kept."
        say(text)
        return io.NodeOutput(to_bhwc(frames) / 255, ui={"text": [text]})


def numbers(history: History) -> dict[str, float]:
    """The run in numbers for programs that read ComfyUI's history, means over the batch."""
    first, last = history.records[0], history.records[-1]
    run = {
        "reward_start": float(first.reward.mean()),
        "reward_best": float(history.best.reward.mean()),
        "iterations": last.step,
        "seconds": last.seconds,
        "best_step": float(history.best.step.float().mean()),
    }
    if PROBABILITY in first.indicators:
        best = history.at_best(lambda record: record.indicators[PROBABILITY])
        run["probability_start"] = float(first.indicators[PROBABILITY].mean())
        run["probability_best"] = float(best.mean())
    return {name: value for name, value in run.items() if math.isfinite(value)}  # JSON has no NaN


def summary(history: History) -> str:
    """`Reward -0.52 → -0.22 at iteration 23 of 30, P(z) 0.71 → 0.25, 34 s. All iterations done.`"""
    run, steps = numbers(history), sorted(set(history.best.step.tolist()))
    batch, reason = len(history.best.step), history.stop_reason.rstrip(".")
    parts = [
        f"Mean reward of {batch} images " if batch > 1 else "Reward ",
        f"{_change(run, 'reward')}, best at iteration {steps[0]}",
        f" to {steps[-1]}" if len(steps) > 1 else "",
        f" of {run['iterations']}",
        f", {PROBABILITY} {_change(run, 'probability')}" if "probability_best" in run else "",
        f", {run['seconds']:.0f} s. ",
        f"Stopped: {reason}." if reason else "All iterations done.",
        f" Started from {history.start}." if history.start else "",
    ]
    return "".join(parts)


def _change(run: dict[str, float], name: str) -> str:
    """From its value at the start to that at the best."""
    values = (run.get(f"{name}_{at}") for at in ("start", "best"))
    return " → ".join("unknown" if value is None else number(value) for value in values)


def chosen(steps: list[int], every: int, maximum: int) -> list[int]:
    """The first of each `every` of these steps, and the last; at most `maximum`, evenly."""
    kept, following = [], steps[0]
    for step in steps:
        if step >= following:
            kept.append(step)
            following = (step // every + 1) * every
    if kept[-1] != steps[-1]:
        kept.append(steps[-1])
    if len(kept) > maximum:
        indices = np.linspace(0, len(kept) - 1, maximum).round().astype(int)
        kept = [kept[index] for index in indices] if maximum > 1 else kept[-1:]
    return kept


def captioned(frame: Tensor, words: str) -> Tensor:
    """A picture (3,H,W) of bytes with `words` on a dark label in its lower left corner."""
    picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
    size = max(min(picture.width, picture.height) // 16, 10)
    draw, face = ImageDraw.Draw(picture), font(size)
    corner = size // 2, picture.height - size // 2
    left, top, right, bottom = draw.textbbox(corner, words, font=face, anchor="ls")
    pad = size // 3
    draw.rounded_rectangle((left - pad, top - pad, right + pad, bottom + pad), pad, "#202020")
    draw.text(corner, words, "white", face, "ls")
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)


NODES = [DNOHistoryPlot, DNOHistoryFrames]

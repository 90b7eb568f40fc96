"""Noise as a thing of its own: looked at, mixed, saved and loaded."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import comfy.utils
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..dno.history import History
from ..dno.noise import Noise
from ..dno.slerp import slerp
from .drawing.spectrum import spectrum_plot
from .host.noise_files import FOLDER, folder, load, next_path, saved
from .host.sampling.replay import Draws, FixedNoise, Replay
from .host.sampling.state import Generators
from .schema import CATEGORY, HistorySocket, drawn, schema
from .verdict import verdict

KINDS = [io.Noise, io.Latent, HistorySocket]
LATENT = io.Latent.Input(
    "latent",
    optional=True,
    tooltip="The latent that the noise is for, to know its size; a NOISE needs it.",
)


class DNOInspectNoise(io.ComfyNode):
    """How Gaussian a noise is: P(z), moments and power spectrum, with a plain verdict."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOInspectNoise",
            display_name="DNO Inspect Noise",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "noise", "spectrum", "gaussian"],
            is_output_node=True,
            inputs=[
                io.MultiType.Input(
                    "noise",
                    KINDS,
                    tooltip="A NOISE, a LATENT that holds noise, or a history: its best noise.",
                ),
                LATENT,
                io.Int.Input("width", default=768, min=128, max=4096, tooltip="Of the plot."),
                io.Int.Input("height", default=384, min=96, max=4096, tooltip="Of the plot."),
            ],
            outputs=[
                io.Image.Output(
                    display_name="plot", tooltip="Power by frequency, beside fresh noise's."
                ),
                io.String.Output(display_name="verdict", tooltip="In words, with the numbers."),
                io.Float.Output(display_name="probability", tooltip="P(z), the lowest image's."),
            ],
        )

    @classmethod
    def execute(cls, noise, width: int, height: int, latent=None) -> io.NodeOutput:
        with torch.inference_mode(False), torch.no_grad():
            converted = as_noise(noise, latent)
            text, probability = verdict(converted)
            picture = drawn(spectrum_plot(converted, width, height))
        return io.NodeOutput(
            picture,
            text,
            probability,
            ui={**ui.PreviewImage(picture, cls=cls).as_dict(), "text": [text]},
        )


class DNOMixNoise(io.ComfyNode):
    """A noise between two: turned from one towards the other, so that it stays Gaussian (slerp)."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOMixNoise",
            display_name="DNO Mix Noise",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "slerp", "interpolate"],
            inputs=[
                io.Noise.Input("first", tooltip="The noise at 0."),
                io.Noise.Input("second", tooltip="The noise at 1."),
                io.Float.Input(
                    "fraction",
                    default=0.5,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="How far from the first to the second.",
                ),
            ],
            outputs=[io.Noise.Output(display_name="noise", tooltip="For SamplerCustomAdvanced.")],
        )

    @classmethod
    def execute(cls, first, second, fraction: float) -> io.NodeOutput:
        return io.NodeOutput(Between(first, second, fraction))


class Between:
    """A NOISE between two others; what a sampler draws by itself comes from the first's seed."""

    def __init__(self, first, second, fraction: float):
        self._first, self._second, self._fraction = first, second, fraction
        self.seed = first.seed

    def generate_noise(self, input_latent: dict) -> Tensor:
        pair = (noise.generate_noise(input_latent) for noise in (self._first, self._second))
        return slerp(*pair, self._fraction)


class DNOSaveNoise(io.ComfyNode):
    """Saves a noise with every draw that it has, and the workflow that made it."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOSaveNoise",
            display_name="DNO Save Noise",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "noise", "safetensors"],
            is_output_node=True,
            hidden=[io.Hidden.prompt],
            inputs=[
                io.MultiType.Input(
                    "noise",
                    KINDS,
                    tooltip=(
                        "A history's best noise or a DNO Sampler's noise, with all its draws; "
                        "another NOISE, or a LATENT that holds noise."
                    ),
                ),
                LATENT,
                io.String.Input(
                    "name", default="noise", tooltip=f"Of the file in output/{FOLDER}; numbered."
                ),
            ],
            outputs=[io.String.Output(display_name="file", tooltip="For DNO Load Noise.")],
        )

    @classmethod
    def execute(cls, noise, name: str, latent=None) -> io.NodeOutput:
        with torch.inference_mode(False), torch.no_grad():
            converted = as_noise(noise, latent)
            path = next_path(name)
            tensors = {
                f"{i:04d}": t.detach().cpu().contiguous() for i, t in enumerate(converted.tensors())
            }
        prompt = getattr(getattr(cls, "hidden", None), "prompt", None)
        settings = {
            "scope": converted.scope,
            "seed": str(getattr(noise, "seed", 0) or 0),
            "prompt": json.dumps(prompt or {}),
        }
        comfy.utils.save_torch_file(tensors, str(path), metadata=settings)
        return io.NodeOutput(path.name, ui={"text": [str(path)]})


class DNOLoadNoise(io.ComfyNode):
    """Loads a saved noise: the initial one, and its draws as a sampler that replays them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOLoadNoise",
            display_name="DNO Load Noise",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "noise", "safetensors"],
            inputs=[
                io.Combo.Input("file", options=saved(), tooltip=f"From output/{FOLDER}."),
                io.Sampler.Input(
                    "sampler",
                    optional=True,
                    tooltip="The sampler that drew it, to replay its draws; as many steps as then.",
                ),
            ],
            outputs=[
                io.Noise.Output(
                    display_name="noise",
                    tooltip="The initial noise; a DNO Sampler's noise input takes the draws too.",
                ),
                io.Sampler.Output(display_name="sampler", tooltip="Replays the saved draws."),
                io.String.Output(
                    display_name="prompt", tooltip="The workflow that made it, in API format."
                ),
            ],
        )

    @classmethod
    def execute(cls, file: str, sampler=None) -> io.NodeOutput:
        path = folder() / Path(file).name
        if not path.is_file():
            raise ValueError(f"file: {path.name} is not in {folder()}; save a noise first.")
        noise, settings = load(path)
        given = FixedNoise(noise.initial, int(settings.get("seed", 0)), Draws(noise.injected))
        replay = None
        if sampler is not None:
            replay = Replay(sampler, noise, Generators.now(torch.device("cpu")))
        return io.NodeOutput(given, replay, settings.get("prompt", "{}"))


def as_noise(given, latent: Mapping | None = None) -> Noise:
    """What is inspected or saved, as a Noise on the CPU."""
    if isinstance(given, History):
        return given.best.noise.snapshot("cpu")
    if isinstance(given, Mapping):
        return Noise(given["samples"].float().cpu())
    if isinstance(given, FixedNoise):
        initial = given.initial if latent is None else given.generate_noise(dict(latent))
        return Noise(initial, given.draws.injected)
    if latent is None:
        raise ValueError(
            "The latent input is empty: a NOISE has no size of its own; connect the latent that it "
            "is for."
        )
    return Noise(given.generate_noise(dict(latent)).float().cpu())


NODES = [DNOInspectNoise, DNOMixNoise, DNOSaveNoise, DNOLoadNoise]

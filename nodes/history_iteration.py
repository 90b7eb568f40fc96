"""Another iteration than the best, out of a history: nothing is climbed or sampled again."""

from __future__ import annotations

import torch
from comfy_api.latest import io

from ..dno.history import History
from .host.sampling.job import handed_on
from .host.sampling.replay import FixedNoise
from .host.web import say
from .schema import CATEGORY, HistorySocket, schema, to_bhwc


class DNOHistoryIteration(io.ComfyNode):
    """Takes another iteration than the best out of a run, without climbing again."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOHistoryIteration",
            display_name="DNO Choose Iteration",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "history", "pick", "iteration", "choose", "step"],
            inputs=[
                HistorySocket.Input("history", tooltip="From the DNO Sampler."),
                io.Int.Input(
                    "iteration",
                    default=0,
                    min=0,
                    max=100000,
                    tooltip="As the plot and the frames count them: 0 is the first picture.",
                ),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent", tooltip="Every image of the batch, for VAE Decode."
                ),
                io.Noise.Output(
                    display_name="noise",
                    tooltip="For a DNO Sampler's noise input, or DNO Save Noise.",
                ),
                io.Image.Output(
                    display_name="image", tooltip="The picture as it was scored, in 8 bits."
                ),
            ],
        )

    @classmethod
    def execute(cls, history: History, iteration: int) -> io.NodeOutput:
        last = history.records[-1].step
        if iteration > last:
            raise ValueError(
                f"The history ends with iteration {last}: there is no iteration {iteration}."
            )
        step = nearest(history, iteration)
        moment, source = history.moments.kept[step], history.source
        with torch.inference_mode(False), torch.no_grad():
            samples = handed_on(source.process_out(moment.latent.float()))
        text = told(history, iteration, step)
        say(text)
        return io.NodeOutput(
            {"samples": samples},
            FixedNoise.of(moment.noise, source.origin),
            to_bhwc(history.film.images[step]) / 255,
            ui={"text": [text]},
        )


def nearest(history: History, iteration: int) -> int:
    """The closest iteration whose latent, noise and picture are all there; of two the earlier."""
    both = history.moments.kept.keys() & history.film.images.keys()
    return min(both, key=lambda step: (abs(step - iteration), step))


def told(history: History, wanted: int, step: int) -> str:
    """`Iteration 36: reward 0.412.`, and why it is not the one that was wanted."""
    record = next(record for record in history.records if record.step == step)
    text = f"Iteration {step}: reward {float(record.reward.mean()):.3g}."
    if step != wanted:
        text += f" Iteration {wanted} was not kept, to save memory; this is the nearest."
    return text


NODES = [DNOHistoryIteration]

"""A history for programs: every number as JSON, and its first and best pictures."""

from __future__ import annotations

import json

from comfy_api.latest import io

from ..dno.history import History
from .schema import CATEGORY, HistorySocket, for_json, schema, to_bhwc


class DNOHistoryData(io.ComfyNode):
    """The whole run for programs: every iteration's numbers as JSON, the first and best pictures.

    What a script or a sweep reads instead of the plot.
    """

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOHistoryData",
            display_name="DNO History Data",
            category=CATEGORY,
            description=" ".join((cls.__doc__ or "").split()),
            search_aliases=["DNO", "json", "numbers", "curve", "export"],
            is_output_node=True,
            inputs=[HistorySocket.Input("history", tooltip="From the DNO Sampler.")],
            outputs=[
                io.String.Output(
                    display_name="json", tooltip="Reward, terms and read-outs of every iteration."
                ),
                io.Image.Output(display_name="start", tooltip="The pictures of iteration 0."),
                io.Image.Output(display_name="best", tooltip="The best picture of each image."),
            ],
        )

    @classmethod
    def execute(cls, history: History) -> io.NodeOutput:
        told = record_of(history)
        start = to_bhwc(history.film.images[min(history.film.images)]) / 255
        best = to_bhwc(history.best.image)
        return io.NodeOutput(json.dumps(told), start, best, ui={"dno_history": [told]})


def record_of(history: History) -> dict[str, object]:
    """The run as JSON holds it: lists over the iterations, in these over the batch."""
    records = history.records
    told = {
        "step": [record.step for record in records],
        "seconds": [record.seconds for record in records],
        "evaluations": [record.evaluations for record in records],
        "score": [for_json(record.objective.tolist()) for record in records],
        "reward": [for_json(record.reward.tolist()) for record in records],
        "best_step": history.best.step.tolist(),
        "stop_reason": history.stop_reason,
        "start": history.start,
    }
    for group in ("terms", "indicators"):
        names = getattr(records[0], group)
        told[group] = {
            n: [for_json(getattr(each, group)[n].tolist()) for each in records] for n in names
        }
    return told


NODES = [DNOHistoryData]

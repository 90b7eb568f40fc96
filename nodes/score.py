"""Any picture, scored by any reward: to compare seeds, models and what DNO made of them."""

from __future__ import annotations

from collections.abc import Mapping

import comfy.model_management as management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dno.objective import Objective, TermError, Weighted
from .canvas import number
from .host.aligner import HOST_ERRORS
from .host.progress import say
from .host.reward_models import bring_in
from .schema import CATEGORY, RewardSocket, schema, to_image


class DNOScoreImages(io.ComfyNode):
    """Scores pictures with a reward, term by term, and picks the best of them."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="DNOScoreImages",
            display_name="DNO Score Images",
            category=CATEGORY,
            description=cls.__doc__,
            search_aliases=["DNO", "reward", "rank", "best of n", "evaluate"],
            is_output_node=True,
            inputs=[
                io.Image.Input("image", tooltip="The pictures to score: one, or a batch."),
                RewardSocket.Input("reward", tooltip="What they are scored by."),
            ],
            outputs=[
                io.String.Output(display_name="scores", tooltip="A table, one line per picture."),
                io.Int.Output(display_name="best_index", tooltip="Its number; the first is 0."),
                io.Float.Output(display_name="best_score", tooltip="Its weighted reward."),
                io.Image.Output(display_name="best_image", tooltip="The best picture."),
                io.Float.Output(
                    display_name="all_scores", is_output_list=True,
                    tooltip="The weighted reward of every picture, as a list.",
                ),
            ],
        )  # fmt: skip

    @classmethod
    def execute(cls, image: Tensor, reward: Mapping[str, Weighted]) -> io.NodeOutput:
        if not isinstance(reward, Mapping) or not reward:
            raise ValueError(
                "The reward input is not a DNO reward: connect a node from sampling/DNO/rewards."
            )
        pictures = to_image(image)
        if pictures.numel() == 0:
            raise ValueError("The image input is empty: there is no picture to score.")
        totals, terms = score(Objective(reward), pictures)
        best = max(range(len(totals)), key=totals.__getitem__)
        text = table(totals, terms, best)
        say(text)
        chosen = image[None] if image.ndim == 3 else image[best : best + 1]
        return io.NodeOutput(text, best, totals[best], chosen, totals, ui={"text": [text]})


def score(objective: Objective, pictures: Tensor) -> tuple[list[float], dict[str, list[float]]]:
    """The weighted reward and each unweighted term of every picture of (B,3,H,W), one at a time."""
    device, bar = management.get_torch_device(), comfy.utils.ProgressBar(len(pictures))
    totals: list[float] = []
    terms: dict[str, list[float]] = {name: [] for name in objective.rewards}
    bring_in(objective)
    with torch.inference_mode(False), torch.no_grad():
        for place, picture in enumerate(pictures):
            management.throw_exception_if_processing_interrupted()
            total, found = _score_one(objective, picture[None].to(device))
            for name, value in found.items():
                if not torch.isfinite(value).all():
                    what = f"The reward {name!r} gave {float(value)} for picture {place}."
                    raise ValueError(what)
                terms[name].append(float(value))
            totals.append(float(total))
            bar.update(1)
    return totals, terms


def _score_one(objective: Objective, picture: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    try:
        return objective.reward(picture)
    except TermError as error:
        if isinstance(error.__cause__, HOST_ERRORS):  # they stay what they are
            raise error.__cause__ from None
        raise


def table(totals: list[float], terms: Mapping[str, list[float]], best: int) -> str:
    """One line per picture: its number, weighted reward and every term; the best has a star."""
    rows = [["picture", "reward", *terms]]
    for place, total in enumerate(totals):
        mark = " *" if place == best and len(totals) > 1 else ""
        values = (total, *(values[place] for values in terms.values()))
        rows.append([f"{place}{mark}", *map(number, values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(" | ".join(row).rstrip() for row in padded)


NODES = [DNOScoreImages]

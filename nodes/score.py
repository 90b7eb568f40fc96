"""Any picture, scored by any reward: to compare seeds, models and what DNO made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import comfy.model_management as management
import comfy.utils
import torch
from comfy_api.latest import io
from torch import Tensor

from ..dno.objective import Objective, TermError, Weighted
from .drawing.canvas import number
from .drawing.sheet import order
from .host import metadata
from .host.described import described
from .host.described import terms as describe_terms
from .host.judges.reward_models import bring_in
from .host.picture.finite import not_finite
from .host.sampling.endings import HOST_ERRORS
from .host.sampling.job import objective
from .host.web import say
from .schema import CATEGORY, RewardSocket, for_json, schema, to_image


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
        metadata.begin(cls.hidden)
        rewards, terms, pictures = score_images(image, reward)
        best = order(rewards)[0]
        text = f"{table(rewards, terms, best)}\n{unseen(pictures)}".strip()
        say(text)
        chosen = image[None] if image.ndim == 3 else image[best : best + 1]
        told = {"text": [text], **_told(rewards, terms)}
        return io.NodeOutput(text, best, rewards[best], chosen, rewards, ui=told)


def _told(rewards: Sequence[float], terms: Mapping[str, Sequence[float]]) -> dict[str, list]:
    """The rewards in full for programs that read ComfyUI's history, one of each per picture."""
    by_term = {name: for_json(values) for name, values in terms.items()}
    return {"dno_scores": [{"scores": for_json(rewards), "terms": by_term}]}


def score_images(
    image: Tensor, reward: Mapping[str, Weighted]
) -> tuple[list[float], dict[str, list[float]], Tensor]:
    """`rewards_of` an IMAGE input, and its pictures (B,3,H,W). Raises ValueError if it is empty."""
    judge, pictures = objective(reward, None, {}), pictures_of(image)
    bar = comfy.utils.ProgressBar(len(pictures))
    rewards, terms = rewards_of(judge, pictures, done=bar.update)
    if all(map(math.isnan, rewards)):
        raise ValueError(unseen(pictures))
    values = {"reward": rewards, "terms": terms}
    metadata.note({"rewards": describe_terms(reward), **described(values)})
    return rewards, terms, pictures


def pictures_of(image: Tensor) -> Tensor:
    """An IMAGE input as (B,3,H,W), NaN where a picture is not finite. Raises ValueError if empty"""
    pictures = to_image(image)
    if pictures.numel() == 0:
        raise ValueError("The image input is empty: there is no picture to score.")
    given = image[None] if image.ndim == 3 else image
    pictures[~given[..., :3].isfinite().flatten(1).all(1)] = math.nan
    return pictures


def unseen(pictures: Tensor) -> str:
    """Which of these pictures (B,3,H,W) are not finite and were scored by nobody, and the mend."""
    indices = [str(index) for index, picture in enumerate(pictures) if not picture.isfinite().all()]
    if not indices:
        return ""
    which = f"Picture {indices[0]}" if len(indices) == 1 else f"Pictures {', '.join(indices)}"
    return f"{which} of the image input: {not_finite('picture')}"


def rewards_of(
    objective: Objective,
    pictures: Tensor,
    latents: Tensor | None = None,
    *,
    of: str = "",
    done: Callable[[int], object] | None = None,
) -> tuple[list[float], dict[str, list[float]]]:
    """The weighted reward and each unweighted term of every picture of (B,3,H,W), one at a time.

    A picture that is not finite is shown to no reward: all its rewards are NaN.

    latents: (B,C,...) what they were decoded from, in the model's space, for rewards that see it.
    of:      whose pictures they are, for a message. done: told 1 after every picture.
    """
    device = management.get_torch_device()
    rewards: list[float] = []
    terms: dict[str, list[float]] = {name: [] for name in objective.rewards}
    bring_in(objective)
    with torch.inference_mode(False), torch.no_grad():
        for index, picture in enumerate(pictures):
            management.throw_exception_if_processing_interrupted()
            reward, values = math.nan, dict.fromkeys(terms, math.nan)
            if picture.isfinite().all():
                latent = None if latents is None else latents[index : index + 1].to(device)
                reward, values = _reward_of(objective, picture[None].to(device), latent)
                _insist(values, f"picture {index}{of}")
            for name, value in values.items():
                terms[name].append(float(value))
            rewards.append(float(reward))
            if done:
                done(1)
    return rewards, terms


def _reward_of(
    objective: Objective, picture: Tensor, latent: Tensor | None
) -> tuple[Tensor, dict[str, Tensor]]:
    try:
        return objective.reward(picture, latent)
    except TermError as error:
        if isinstance(error.__cause__, HOST_ERRORS):  # they stay what they are
            raise error.__cause__ from None
        raise


def _insist(values: Mapping[str, Tensor], of: str) -> None:
    for name, value in values.items():
        if not torch.isfinite(value).all():
            raise ValueError(f"The reward {name!r} gave {float(value)} for {of}.")


def table(
    rewards: Sequence[float],
    terms: Mapping[str, Sequence[float]],
    best: int,
    *,
    kind: str = "picture",
    names: Sequence[object] | None = None,
    indices: Iterable[int] | None = None,
) -> str:
    """One line per picture: its number, weighted reward and every term; the best has a star.

    kind, names: what the lines are about, and their names. indices: which ones, in which order.
    """
    names = range(len(rewards)) if names is None else names
    rows = [[kind, "reward", *terms]]
    for index in range(len(rewards)) if indices is None else indices:
        mark = " *" if index == best and len(rewards) > 1 else ""
        values = (rewards[index], *(values[index] for values in terms.values()))
        rows.append([f"{names[index]}{mark}", *map(number, values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(" | ".join(row).rstrip() for row in padded)


NODES = [DNOScoreImages]

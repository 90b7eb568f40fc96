"""A history as a picture: the reward and its terms above, the noise's health below."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor

from ...dno.history import History, Record
from .canvas import ARROW, Scale, number
from .chart import Curve, Panel, draw

# Okabe and Ito's palette: told apart with any colour vision, and by lightness.
REWARD, HEALTH = "#0072B2", ("#009E73", "#D55E00")
TERMS = ("#E69F00", "#CC79A7", "#56B4E9", "#009E73", "#D55E00", "#777777")
SHARED = 2.5  # a term is drawn on the reward's axis if that makes the axis at most this much longer
IMAGES = 16  # of a batch get a line of their own


def plot(history: History, width: int, height: int) -> Image.Image:
    """Draw `history` in `width` x `height` pixels.

    Above: the weighted reward, a thick line for each image with a dot at its best, and each term's
    mean over the batch, unweighted; a term of another magnitude is dashed and fills the panel.
    Below: P(z) from 0 to 1 and the other indicators from 0 on the right, means over the batch.
    """
    if not history.records:
        raise ValueError("The history is empty: nothing was sampled, so there is nothing to plot.")
    above, below = reward_panel(history), health_panel(history)
    return draw(above, below, [record.step for record in history.records], width, height)


def reward_panel(history: History) -> Panel:
    """The reward of each image and the terms' means."""
    rewards = torch.stack([record.reward for record in history.records])[:, :IMAGES]
    terms = {
        name: _series(history, lambda record, name=name: record.terms[name])
        for name in history.records[0].terms
    }
    mean, best = _series(history, lambda record: record.reward)
    same = next((name for name, (values, _) in terms.items() if _close(values, mean)), None)
    terms.pop(same, None)
    known = _finite(rewards.flatten().tolist())
    shared = [name for name, (values, _) in terms.items() if _fits(values, known)]
    left = Scale.around([*known, *(v for name in shared for v in _finite(terms[name][0]))])
    legend = _legend(f"reward ({same})" if same else "reward", mean, best)
    thickness = 3.0 if rewards.shape[1] == 1 else 1.7
    curves = [
        Curve("" if index else legend, REWARD, values, left, thickness)
        for index, values in enumerate(rewards.T.tolist())
    ]
    for index, (name, (values, at_best)) in enumerate(terms.items()):
        scale = left if name in shared else Scale.around(_finite(values))
        colour, words = TERMS[index % len(TERMS)], _legend(name, values, at_best)
        curves.append(Curve(words, colour, values, scale, 1.8, name not in shared))
    dots = zip(history.best.step.tolist(), history.best.reward.tolist(), strict=True)
    return Panel(curves, left, dots=list(dots)[:IMAGES])


def health_panel(history: History) -> Panel | None:
    """P(z) on the left, every other indicator on the right; None without indicators."""
    means = {
        name: _series(history, lambda record, name=name: record.indicators[name])
        for name in history.records[0].indicators
    }
    left = Scale(-0.05, 1.05)
    others = [v for name, (values, _) in means.items() if name != "P(z)" for v in _finite(values)]
    top = max(others, default=0.0)
    right = Scale(-0.05 * max(top, 10.0), 1.05 * max(top, 10.0)) if others else None
    curves = []
    for name, (values, best) in means.items():
        colour, scale = (HEALTH[0], left) if name == "P(z)" else (HEALTH[1], right or left)
        curves.append(Curve(_legend(name, values, best), colour, values, scale, 2.2))
    return Panel(curves, left, right, HEALTH) if curves else None


def _series(history: History, read: Callable[[Record], Tensor]) -> tuple[list[float], float]:
    """The batch's mean at every iteration, and at the best of each image."""
    means = torch.stack([read(record).mean() for record in history.records])
    return means.tolist(), float(history.at_best(read).mean())


def _legend(name: str, values: Sequence[float], best: float) -> str:
    start = f"{number(values[0])} {ARROW} " if len(values) > 1 else ""
    return f"{name} {start}{number(best)}"


def _fits(values: Sequence[float], rewards: Sequence[float]) -> bool:
    """Whether the reward's axis can take in a term without squeezing the reward."""
    low, high = min(rewards), max(rewards)
    span = max(high - low, 0.02 * max(abs(low), abs(high)), 1e-6)
    return max(high, *_finite(values)) - min(low, *_finite(values)) <= SHARED * span


def _finite(values: Sequence[float]) -> list[float]:
    return [value for value in values if math.isfinite(value)] or [0.0]


def _close(values: Sequence[float], others: Sequence[float]) -> bool:
    pairs = zip(values, others, strict=True)
    return all(math.isclose(a, b, rel_tol=1e-4, abs_tol=1e-6) for a, b in pairs)

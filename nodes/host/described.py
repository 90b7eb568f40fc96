"""Settings, terms and runs in words and numbers, of which JSON can be made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from ...dno.history import History, Record
from ...dno.objective import Objective, Weighted


def described(value: object) -> object:
    """Numbers, words and containers as they are, a dataclass as its fields, others by name."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {str(name): described(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    kind = type(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: described(getattr(value, field.name)) for field in _public(value)}
        return {"class": kind.__name__, **fields}
    title = getattr(value, "title", None) if isinstance(value, nn.Module) else None
    return str(title or getattr(value, "__name__", kind.__name__))


def _public(value) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(value) if not field.name.startswith("_")]


def terms(weighted: Mapping[str, Weighted]) -> dict[str, object]:
    """Every term's weight and what it is."""
    return {
        name: {"weight": described(term.weight), "term": described(term.function)}
        for name, term in weighted.items()
    }


def climb(objective: Objective, settings: object, history: History) -> dict[str, object]:
    """What was climbed, how, and how far: numbers per image, at the start and at its best."""
    first = history.records[0]
    reads = {
        "terms": {name: _both(history, lambda r, n=name: r.terms[n]) for name in first.terms},
        "indicators": {
            name: _both(history, lambda r, n=name: r.indicators[n]) for name in first.indicators
        },
    }
    return {
        "rewards": terms(objective.rewards),
        "regularizers": terms(objective.regularizers),
        "settings": described(settings),
        "start": history.start or "the given noise",
        "iterations": history.records[-1].step,
        "stopped": history.stop_reason or "all iterations done",
        "best_iteration": _list(history.at_best(lambda r: torch.full_like(r.reward, r.step))),
        "reward": _both(history, lambda record: record.reward),
        **reads,
    }


def _both(history: History, read) -> dict[str, object]:
    first: Record = history.records[0]
    return {"start": _list(read(first)), "best": _list(history.at_best(read))}


def _list(values: Tensor) -> object:
    return described([round(value, 6) for value in values.tolist()])

"""How the judges are trained: AdamW, a short warm-up, then a cosine to zero over the budget."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from .progress import Session

RATE = 3e-3

Network = TypeVar("Network", bound=nn.Module)


def fit(
    network: Network,
    loss_at: Callable[[int], Tensor],
    path: Path,
    minutes: float,
    every: int = 100,
) -> Network:
    """The trained network; resumes from `path` by itself.

    loss_at: step -> the loss of that step's batch, which depends on the step alone.
    every:   steps between two lines of progress, named by the file.
    """
    network = network.to(memory_format=torch.channels_last)
    adam = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    session = Session(path, minutes, network=network, adam=adam)
    while session.progress < 1:
        loss = loss_at(session.step)
        network.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        warm = min(1, (session.step + 1) / 100)
        adam.param_groups[0]["lr"] = RATE * warm * (1 + math.cos(math.pi * session.progress)) / 2
        adam.step()
        session.advance()
        if session.step % every == 0:
            line = f"{path.stem} {session.seconds:.0f} s step {session.step}"
            print(f"{line} loss {loss.item():.3f}", flush=True)
    session.save()
    return network.eval()

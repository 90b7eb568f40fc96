"""Iterates and histories made by hand, for the tests of what reads them."""

import math

import torch

from ComfyUI_DNO.dno.ascent import Iterate
from ComfyUI_DNO.dno.film import Film
from ComfyUI_DNO.dno.history import History
from ComfyUI_DNO.dno.noise import Noise


def iterate(step, objectives, *, rewards=None, noise=None):
    """An iterate of len(objectives) images whose latent, picture and noise all tell its step."""
    objective = torch.tensor(objectives, dtype=torch.float64)
    batch = len(objectives)
    return Iterate(
        step=step,
        objective=objective,
        reward=objective if rewards is None else torch.tensor(rewards),
        terms={"light": objective + 1},
        indicators={"P(z)": objective.new_full((batch,), 1 / (step + 1))},
        latent=torch.full((batch, 2, 3, 3), float(step)),
        image=torch.full((batch, 3, 4, 4), min(step / 10, 1.0)),
        noise=noise or Noise(torch.full((batch, 2, 3, 3), step + 0.5), [torch.ones(batch, 1)]),
    )


def history_of(*objectives, **keywords):
    history = History()
    for step, row in enumerate(objectives):
        history.add(iterate(step, row, **keywords), seconds=2.0 * (step + 1))
    return history


def climb(iterations=30, batch=1, terms=("light",), indicators=True, film=None):
    """A run: image i starts at -0.5 + 0.1 i and has its best two iterations before the end.

    terms: "light" equals the reward; "drag" is of its magnitude, "weight" a thousand times that.
    """
    history, noise = History(film or Film()), Noise(torch.zeros(batch, 1, 2, 2))
    for step in range(iterations + 1):
        done = min(step, 2 * max(iterations - 2, 0) - step) / max(iterations, 1)
        reward = torch.arange(batch) * 0.1 - 0.5 + 0.3 * done
        every = {"light": reward, "drag": -0.2 - 0.1 * reward, "weight": 1000 * reward.cos()}
        health = {
            "P(z)": torch.full((batch,), 0.8 * math.exp(-done)),
            "spectral deviation": torch.full((batch,), 5 + 3 * done),
        }
        history.add(
            Iterate(
                step,
                reward,
                reward,
                {name: every[name] for name in terms},
                health if indicators else {},
                torch.zeros(batch, 1, 2, 2),
                torch.rand(batch, 3, 24, 32, generator=torch.Generator().manual_seed(step)),
                noise,
            ),
            1.5 * (step + 1),
        )
    return history

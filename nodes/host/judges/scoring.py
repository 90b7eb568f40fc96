"""What the networks of rewards take to score with a gradient, measured."""

from __future__ import annotations

import comfy.model_management as management
import torch
from torch import Tensor

from ....dno.autograd.generators import same_draws
from ....dno.autograd.profile import Live
from ....dno.objective import Objective, TermError
from .reward_models import networks_in


def scoring(objective: Objective, picture: Tensor, latent: Tensor) -> int:
    """Bytes at the peak of scoring (B,3,H,W) or its latent, and of the gradient by both.

    Rewards without a network on the picture's device take little and are not asked.
    """
    device = picture.device
    judged = {
        name: term
        for name, term in objective.rewards.items()
        if any(network.patcher.load_device == device for network in networks_in(term.function))
    }
    if not judged:
        return 0
    given = [tensor.detach().clone().requires_grad_() for tensor in (picture, latent)]
    exact, _ = Objective(judged).split()
    with torch.enable_grad(), same_draws(device), Live() as live:
        try:
            score, _ = exact.reward(*given)
            if score.requires_grad:
                torch.autograd.grad(score.sum(), given, allow_unused=True)
        except (TermError, management.OOM_EXCEPTION):
            return live.peak  # the climb itself will tell of it, where a picture can be kept
    return live.peak

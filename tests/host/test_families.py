"""Gradients are exact on every model family that ComfyUI has, and leave no trace on the model."""

from __future__ import annotations

import functools

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ComfyUI_DNO.dno.autograd.recompute import Recomputer

from ..support import families
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, difference, doubles, sample

KNOWN = [name for name, family in FAMILIES.items() if family.known]
LADDER = (1e-3, 1e-4, 1e-5)  # of central differences, and of fourth-order ones from each two
every_family = pytest.mark.parametrize("name", KNOWN)
EXACT = 1e-9  # in float64: differences of fourth order reach 2e-11 on every family
ROUNDING = 5e-4  # what float32 may change of a gradient through three steps of a random network


@functools.cache
def exact(name: str) -> Probe:
    """The family in float64, and how well its gradient fits central differences."""
    family, probe = FAMILIES[name], Probe(steps=LADDER)
    with doubles():
        guider = families.guider(family, build(family, torch.float64))
        sample(guider, probe, family.latent, torch.float64)
    return probe


def state(patcher) -> list:
    """Every tensor of the model: where it lives, itself, and what it holds."""
    return [
        (table, name, value, value.clone())
        for module in patcher.model.modules()
        for table in (module._parameters, module._buffers, vars(module))
        for name, value in table.items()
        if isinstance(value, torch.Tensor)
    ]


def bits(tensor: torch.Tensor) -> torch.Tensor:
    tensor = getattr(tensor, "_qdata", tensor)  # of a quantised weight
    return tensor.detach().reshape(-1).contiguous().view(torch.uint8)


def assert_untouched(before: list) -> None:
    for table, name, value, content in before:
        assert table[name] is value, f"{name} was replaced"
        assert torch.equal(bits(value), bits(content)), f"{name} changed"


@every_family
def test_the_gradient_fits_central_differences(name):
    probe = exact(name)
    assert all(g.isfinite().all() for g in probe.gradient)
    assert min(probe.errors) < EXACT, probe.errors


@every_family
def test_a_model_loaded_by_an_earlier_node_samples_bitwise_and_keeps_its_weights(name):
    family, probe = FAMILIES[name], Probe()
    with torch.inference_mode():
        model = build(family)
        before = state(model)
        expected = sample(families.guider(family, model), "euler", family.latent)
        rendered = sample(families.guider(family, model), probe, family.latent)
        again = sample(families.guider(family, model), "euler", family.latent)
    assert all(value.is_inference() for _, _, value, _ in before)
    assert torch.equal(rendered, expected)
    assert torch.equal(again, expected)
    assert_untouched(before)
    assert difference(probe.gradient, exact(name).gradient) < ROUNDING


def test_torchs_checkpoint_is_wrong_on_flux_without_a_word(monkeypatch):
    """Why the pack recomputes by itself: the same run over torch's checkpoint."""

    def checkpointed(recomputer, call, x):
        return checkpoint(call, x, use_reentrant=False) if x.requires_grad else call(x)

    monkeypatch.setattr(Recomputer, "__call__", checkpointed)
    family, probe = FAMILIES["Flux"], Probe(steps=LADDER)
    with doubles():
        guider = families.guider(family, build(family, torch.float64))
        sample(guider, probe, family.latent, torch.float64)
    assert min(probe.errors) > 1e-3
    assert difference(probe.gradient, exact("Flux").gradient) > 1e-2

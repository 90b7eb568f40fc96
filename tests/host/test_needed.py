"""What a climb is foreseen to take, against what benchmarks/memory.md counted."""

from __future__ import annotations

import copy
import importlib.util
import re
import sys
from pathlib import Path

import comfy.model_management as management
import comfy.samplers
import comfy.supported_models
import pytest
import torch

from ComfyUI_DNO.nodes.host.sampling.levels import SHARE
from ComfyUI_DNO.nodes.host.sampling.needed import MEMORY, evaluation

from ..support import tiny

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
COLUMNS = {"whole": ("recorded", "call"), "blocks": ("automatic", "blocks"), "least": ("least",)}
BOUNDS = {"whole": (0.9, 1.9), "blocks": (1.0, 2.0), "least": (1.0, 2.1)}  # planned / counted
WIDER = {  # to what one factor comes of models that ComfyUI itself plans too much for
    ("SD1.5", "whole"): 3.4,
    ("SD3.5-medium", "whole"): 2.5,
    ("SD3.5-medium", "blocks"): 2.6,
}
GB = 2**30


def published() -> dict:
    spec = importlib.util.spec_from_file_location("published", BENCHMARKS / "published.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where its dataclasses look
    spec.loader.exec_module(module)
    del sys.modules[spec.name]
    return module.MODELS


MODELS = published()


def rows() -> list[tuple]:
    """(model, latent, what memory.md says in GB)"""
    text, found = (BENCHMARKS / "memory.md").read_text(encoding="utf-8"), []
    row = r"^\| ([^|]*?)(?: (\d+) x (\d+))?(?:, (\d+) frames)? " + 12 * r"\| ([\d.]+) " + r"\|$"
    for name, width, height, frames, *numbers in re.findall(row, text, re.MULTILINE):
        latent = MODELS[name].latent(int(height or 1024), int(width or 1024), int(frames or 1))
        _, whole, _, blocks, _, _, _, split, *_ = map(float, numbers)
        found.append((name, latent, {"whole": whole, "blocks": blocks, "least": split}))
    return found


@pytest.fixture(scope="module")
def shallow():
    """ComfyUI's own model of every row, shallow and without numbers: its figure is the same."""
    made = {}
    for name, model in MODELS.items():
        depths = {key: 1 for key in model.config if re.fullmatch("depth.*|n(um)?_layers", key)}
        config = getattr(comfy.supported_models, model.family)({**model.config, **depths})
        config.unet_config.update(depths)
        config.set_inference_dtype(getattr(torch, model.half), None)
        with torch.device("meta"):
            network = config.get_model({}, device="meta")
        guider = comfy.samplers.CFGGuider(tiny.patcher(network))
        guider.inner_model, guider.cfg = network, 3.0 if model.cfg else 1.0
        guider.conds = {"positive": [{}], "negative": [{}]}
        made[name] = guider
    return made


@pytest.fixture
def guiders(shallow):
    """Each with its usual prompts."""
    return {name: copy.copy(guider) for name, guider in shallow.items()}


@pytest.fixture(params=[True, False], ids=["flash", "other attention"])
def attention(request, monkeypatch):
    """As ComfyUI finds it on a host."""
    monkeypatch.setattr(management, "pytorch_attention_flash_attention", lambda: request.param)
    monkeypatch.setattr(management, "xformers_enabled", lambda: False)


def test_the_plan_is_about_what_a_published_model_takes(guiders, attention):
    assert len(rows()) == 15 and {name for name, *_ in rows()} == set(MODELS)
    for name, latent, counted in rows():
        for column, choices in COLUMNS.items():
            low, high = BOUNDS[column]
            for memory in choices:
                planned = evaluation(guiders[name], (1, *latent), memory) / GB
                high = WIDER.get((name, column), high)
                assert low <= planned / counted[column] <= high, (name, memory, planned)


def test_a_plan_of_whole_calls_that_leaves_no_room_for_the_weights_is_one_of_blocks(guiders):
    """As on a card: Flux in 8 bits, 11 GB, of 24 GB."""
    flux, latent = guiders["Flux.1-dev"], (1, *MODELS["Flux.1-dev"].latent(1024, 1024))
    whole, blocks = (evaluation(flux, latent, memory) for memory in ("call", "blocks"))
    assert blocks < 13 * GB < whole
    for memory in ("call", "recorded"):
        assert evaluation(flux, latent, memory, room=13 * GB) == blocks
        assert evaluation(flux, latent, memory, room=whole) == whole
    for memory in ("automatic", "blocks", "least"):  # nothing smaller would be as fast
        assert evaluation(flux, latent, memory, room=0) == evaluation(flux, latent, memory)


def test_what_an_evaluation_computes_at_once_is_planned(guiders):
    latent = (1, 4, 64, 64)
    guider = guiders["SD1.5"]

    def planned(positive, negative=({},), cfg=3.0, memory="blocks"):
        guider.conds, guider.cfg = {"positive": positive, "negative": list(negative)}, cfg
        return evaluation(guider, latent, memory)

    one = planned([{}], cfg=1.0)
    early, late = {"timestep_start": 999.0, "timestep_end": 500.0}, {"timestep_start": 500.0}
    assert planned([{}]) == planned([early, late]) == pytest.approx(2 * one, rel=1e-6)
    assert planned([{}, {}]) == planned([{}, early, late]) == pytest.approx(3 * one, rel=1e-6)
    assert planned([{}, {}], memory="least") == pytest.approx(2 * one, rel=1e-6)
    guider.model_options = {"disable_cfg1_optimization": True}
    assert planned([{}], cfg=1.0) == planned([{}])


def test_reference_pictures_are_planned(guiders):
    guider, latent = guiders["Flux.1-dev"], (1, 16, 128, 128)
    guider.conds = {"positive": [{"reference_latents": [torch.zeros(1, 16, 128, 128)]}]}
    doubled = evaluation(guider, latent, "blocks")
    guider.conds = {"positive": [{}]}
    assert doubled == pytest.approx(2 * evaluation(guider, latent, "blocks"), rel=1e-6)


def test_every_choice_has_its_figure():
    assert {memory for choices in COLUMNS.values() for memory in choices} == set(MEMORY)


def test_the_help_page_says_how_much_of_the_free_memory_a_climb_plans_with():
    page = BENCHMARKS.parent / "web" / "docs" / "DNOOptions.md"
    assert f"up to {100 * SHARE:.0f} % of the free memory" in page.read_text(encoding="utf-8")

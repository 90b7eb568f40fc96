"""What the sampler does by its effort, what overrides it, and that old workflows do as they did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ComfyUI_DNO.dno.method import Ascent, Then
from ComfyUI_DNO.dno.objective import Weighted
from ComfyUI_DNO.dno.optimizers import SGD, Adam, Langevin, Rotation
from ComfyUI_DNO.dno.presets import PRESETS
from ComfyUI_DNO.dno.steer import Pass, Steer
from ComfyUI_DNO.nodes.host.picture import directions
from ComfyUI_DNO.nodes.host.picture.directions import LinearMap
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.plan import EFFORTS, planned
from ComfyUI_DNO.nodes.presets import USUAL, DNOPreset, DNOSteering, parsed
from ComfyUI_DNO.nodes.regularizers import DNONoRegularizer
from ComfyUI_DNO.nodes.sampler import DNOSampler, DNOSamplerCustom
from ComfyUI_DNO.nodes.strength import SPEEDS, DNOStrength
from ComfyUI_DNO.regularizers import Spectrum

from ..support import tiny

ROOT = Path(__file__).resolve().parents[2]
MINE = {"mine": Weighted(1.0, lambda noise: noise.initial.new_zeros(len(noise.initial)))}


class Ramp:
    differentiable = True

    def __call__(self, image):
        return (image * torch.linspace(1, -1, image.shape[-1]).to(image)).mean((1, 2, 3)) * 10


def plan(effort="fast", iterations=-1, regularizer=None, optimizer=None, options=None):
    return planned(options or Options(), effort, iterations, 0.05, regularizer, optimizer, None)


@pytest.fixture(scope="module")
def parts():
    with torch.inference_mode():
        return (
            tiny.unet(tiny.ModelType.FLOW),
            tiny.vae(),
            tiny.conditioning(1),
            tiny.conditioning(2),
        )


def run(parts, model=None, **inputs):
    with torch.inference_mode():
        return DNOSampler.execute(
            model or parts[0], parts[2], parts[3], {"samples": torch.zeros(2, 4, 8, 8)}, parts[1],
            {"ramp": Weighted(1.0, Ramp())}, 5, 3, 3.0,
            inputs.pop("sampler_name", "euler_ancestral"), "normal", 1.0,
            inputs.pop("iterations", -1), 0.05, **inputs,
        )  # fmt: skip


def test_iterations_that_are_set_climb_as_ever_whatever_the_effort():
    """So a saved workflow, which has a number there and no effort, does what it did."""
    for effort in EFFORTS:
        settings, regularizer = plan(effort, 24, MINE)
        assert settings.way == Ascent(Adam(), 0.05, 24, 1.0)
        assert regularizer is MINE and settings.note == "regularizer: mine 1"


def test_every_saved_workflow_sets_its_iterations():
    """Its widgets end before effort, which then shows its default: it must not count."""
    samplers = 0
    for path in sorted((ROOT / "example_workflows" / "api").glob("*.json")):
        for node in json.loads(path.read_text("utf-8")).values():
            if node["class_type"] in ("DNOSampler", "DNOSamplerCustom"):
                assert node["inputs"]["iterations"] >= 0 or "effort" in node["inputs"]
                samplers += 1
    assert samplers >= 10


@pytest.mark.parametrize("node", [DNOSampler, DNOSamplerCustom])
def test_effort_is_the_last_widget_and_need_not_be_there(node):
    inputs = node.define_schema().inputs
    last = [each for each in inputs if hasattr(each, "default")][-1]  # others are sockets
    assert last.id == "effort" and last.optional
    assert last.default == "fast" and last.options == list(EFFORTS)
    (iterations,) = [each for each in inputs if each.id == "iterations"]
    assert (iterations.default, iterations.min) == (-1, -1)


@pytest.mark.parametrize(
    "effort, kind", [("one pass", Steer), ("fast", Steer), ("thorough", Then), ("paper", Ascent)]
)
def test_an_effort_is_its_preset(effort, kind):
    settings, regularizer = plan(effort)
    assert settings.way == PRESETS[EFFORTS[effort]].method and isinstance(settings.way, kind)
    assert settings.note.splitlines()[0] == f"effort: {effort}"
    assert settings.differentiates == (effort in ("thorough", "paper"))
    assert list(regularizer or {}) == (["probability"] if effort == "paper" else [])
    assert plan(effort, regularizer=MINE)[1] is MINE
    kept = "probability 1, as published" if effort == "paper" else "none is needed, its turns keep"
    assert f"regularizer: {kept}" in settings.note


@pytest.mark.parametrize("optimizer", [None, SGD(), Adam(), Langevin()])
@pytest.mark.parametrize("iterations", [-1, 7])
def test_a_climb_is_protected_where_nothing_is_connected(iterations, optimizer):
    if optimizer is None and iterations == -1:
        return  # an effort
    settings, regularizer = plan("fast", iterations, optimizer=optimizer)
    assert regularizer == {"spectrum": Weighted(1.0, Spectrum())}
    assert "regularizer: spectrum 1, because none is connected" in settings.note
    (nothing,) = DNONoRegularizer.execute().result
    settings, regularizer = plan("fast", iterations, nothing, optimizer)
    assert regularizer == {} and settings.note.endswith("regularizer: none")


def test_turns_need_no_regularizer_and_without_iterations_nothing_moves():
    settings, regularizer = plan("fast", 7, optimizer=Rotation())
    assert regularizer is None and "none is needed" in settings.note
    settings, regularizer = plan("fast", 0)
    assert regularizer is None and settings.note == ""


@pytest.mark.parametrize("title", PRESETS)
def test_a_preset_keeps_the_regularizers_that_it_publishes(title):
    options = DNOPreset.execute(title).result[0]
    settings, regularizer = plan(options=options)
    published = [each.name.lower() for each in PRESETS[title].penalties]
    assert list(regularizer or {}) == published
    assert ("as published" in settings.note) or not published
    settings, regularizer = plan(regularizer={}, options=options)
    assert regularizer == {} and settings.note.endswith("regularizer: none")


def test_what_protects_a_run_is_what_climbs(parts):
    protected, bare = run(parts, iterations=2), run(parts, iterations=2, regularizer={})
    assert "spectrum" in protected[1].records[0].terms
    assert list(bare[1].records[0].terms) == ["ramp"]
    connected = run(parts, iterations=2, regularizer={"spectrum": Weighted(1.0, Spectrum())})
    assert torch.equal(protected[0]["samples"], connected[0]["samples"])


def test_an_optimizer_overrides_the_effort_and_the_node_says_so():
    settings, _ = plan("fast", optimizer=SGD())
    assert settings.way == Ascent(SGD(), 0.05, 30, 1.0)
    assert "SGD, which overrides effort" in settings.note


def test_a_preset_overrides_effort_iterations_and_optimizer():
    options, source = DNOPreset.execute("ReNO", Options(patience=3)).result
    settings, regularizer = plan("fast", 24, optimizer=Adam(), options=options)
    assert settings.way == PRESETS["ReNO"].method and settings.scope == "initial"
    assert list(regularizer) == ["norm"] and regularizer["norm"].weight == 0.01
    assert settings.stopping and "preset ReNO" in settings.note
    assert "2406.04312" in source and "one-step" in source


@pytest.mark.parametrize("title", PRESETS)
def test_every_preset_can_be_chosen(title):
    options, source = DNOPreset.execute(title).result
    settings, _ = plan(options=options)
    assert settings.way == PRESETS[title].method and settings.carried == PRESETS[title].carried
    assert source.startswith(PRESETS[title].source)


def test_steering_by_hand():
    options = DNOSteering.execute("12 seed, 8", False, 2.0, True, "linear").result[0]
    settings, _ = plan(options=options)
    method = settings.way
    assert method.passes == (Pass(12, "seed"), Pass(8, "best"))
    assert method.whiten.power == 0 and method.project.tolerance == 2.0
    assert method.polish is not None and settings.directions == "linear"
    assert parsed(USUAL) == PRESETS["fast"].method.passes
    usual = [each.default for each in DNOSteering.define_schema().inputs[:5]]
    by_hand = DNOSteering.execute(*usual).result[0]
    assert plan(options=by_hand)[0].way == PRESETS["fast"].method
    assert parsed("10") == (Pass(10, "seed"),)
    assert parsed("12 seed, 9 rough, 8best rough")[1:] == (
        Pass(9, "best", rough=True),
        Pass(8, "best", rough=True),
    )


@pytest.mark.parametrize("speed", SPEEDS)
def test_a_brisk_strength_is_the_effort_itself(speed):
    settings, _ = plan("paper", 24, options=DNOStrength.execute("brisk", speed).result[0])
    assert settings.way == PRESETS[EFFORTS[speed]].method and settings.note.startswith(
        f"brisk, {speed}"
    )


def test_strength_turns_less_or_more():
    angles = {}
    for strength in ("gentle", "strong"):
        given = DNOStrength.execute(strength, "thorough", Options(patience=3)).result[0]
        settings, _ = plan(options=given)
        assert settings.stopping
        turns = settings.way.second.optimizer
        passes = [each.angle for each in settings.way.first.passes]
        angles[strength] = [*passes, turns.angle, turns.largest]
    assert angles["gentle"] == [7, 7, 7, 5, 4, 1.5, 6]
    assert angles["strong"] == [24.5, 24.5, 24.5, 17.5, 14, 5.25, 21]


def test_a_strength_that_is_none_is_told():
    with pytest.raises(
        ValueError, match="choose one of gentle, brisk, strong, and one of one pass"
    ):
        DNOStrength.execute("wild", "fast")


@pytest.mark.parametrize(
    "passes", ["", "12 best seed", "0", "91", "x", "12 seed;8", "12 rough seed", "9 roughly"]
)
def test_bad_passes_are_told(passes):
    with pytest.raises(ValueError, match="is not a pass; write degrees"):
        parsed(passes)


def test_a_part_of_the_noise_limits_any_method():
    mask = torch.zeros(1, 8, 8)
    for effort in EFFORTS:
        settings, _ = plan(effort, options=Options(mask=mask, frequencies=0.5))
        assert settings.way != PRESETS[EFFORTS[effort]].method


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("name", ["euler_ancestral", "euler"])
def test_every_effort_betters_the_picture_and_replays(parts, effort, name):
    if effort == "paper":
        inputs = {"options": Options(patience=1, use_target=True, target_reward=-1e5)}
    else:
        inputs = {}
    latent, history, *_ = run(parts, effort=effort, sampler_name=name, **inputs).result
    plain = run(parts, iterations=0, sampler_name=name)[1].best.reward
    assert (history.best.reward >= plain).all()
    if effort != "paper":
        assert (history.best.reward > plain).all()
    count = {"one pass": 1, "fast": 6, "thorough": 16, "paper": 1}[effort]
    assert len(history.records) == count + (effort == "one pass" and name == "euler")
    assert latent["samples"].isfinite().all()


def test_a_network_that_cannot_be_differentiated_is_steered(parts):
    """Compiled, quantised or fused: its calls only have to run without a gradient."""
    model = parts[0].clone()

    def opaque(apply_model, arguments):
        if torch.is_grad_enabled() and arguments["input"].requires_grad:
            raise RuntimeError("no backward")
        with torch.inference_mode():
            return apply_model(arguments["input"], arguments["timestep"], **arguments["c"]).clone()

    model.set_model_unet_function_wrapper(opaque)
    history = run(parts, model, effort="fast")[1]
    assert (history.best.reward > history.records[0].reward).all()
    with pytest.raises(Exception, match="no backward|differentiated"):
        run(parts, model, iterations=2)


def test_weights_are_left_alone_where_the_network_is_only_evaluated(parts):
    seen = []

    def watch(apply_model, arguments):
        weights = next(iter(parts[0].model.diffusion_model.parameters()))
        seen.append(weights.is_inference())
        return apply_model(arguments["input"], arguments["timestep"], **arguments["c"])

    model = parts[0].clone()
    model.set_model_unet_function_wrapper(watch)
    run(parts, model, effort="one pass")
    assert seen and all(seen)
    seen.clear()
    run(parts, model, iterations=1)
    assert seen and not any(seen)


def test_a_time_budget_ends_a_pass_in_the_middle(parts, monkeypatch):
    from ComfyUI_DNO.nodes.host.progress import Progress

    clock = iter(range(10_000))
    monkeypatch.setattr(Progress, "seconds", property(lambda self: float(next(clock))))
    history = run(parts, effort="fast", options=Options(seconds=4.0))[1]
    assert 1 <= len(history.records) < 6
    assert "time budget of 4 s used" in history.stop_reason


def test_targets_end_between_passes(parts):
    history = run(parts, effort="fast", options=Options(use_target=True, target_reward=-100.0))[1]
    assert len(history.records) == 1 and "target" in history.stop_reason


def test_fast_finds_its_rough_directions_by_the_map_where_it_agrees(parts, monkeypatch):
    """Three of its five passes at most, and none where the map explains too little."""
    asked = []
    call = LinearMap.__call__
    monkeypatch.setattr(LinearMap, "__call__", lambda self, x: asked.append(1) or call(self, x))
    for explained in (0.0, 1.0):
        monkeypatch.setattr(directions, "_explained", lambda *_, share=explained: share)
        asked.clear()
        run(parts, effort="fast")
        assert len(asked) == (3 * 2 if explained else 0)  # three steps, of which two draw

"""Every level of memory gives the same gradient and ComfyUI's picture, to the last bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ComfyUI_DNO.dno.autograd.structure import calls_noted, find_blocks
from ComfyUI_DNO.nodes.host import compat
from ComfyUI_DNO.nodes.host.sampling import levels
from ComfyUI_DNO.nodes.host.sampling.plan import Level, Plan, Sizes, plan

from ..second_device.climbing import climb
from ..support import families, tiny
from ..support.families import FAMILIES, build
from ..support.family_probe import Probe, difference, doubles, sample
from .test_families import KNOWN, exact
from .test_model_patches import PATCHES, with_controlnet, with_free_u, with_hooks, with_lora

SAMPLED = ["SD1.5", "SD3", "Flux", "Lumina 2"]  # a UNet, two streams, writes in place, refiners
SLOW = [Level.RECORDED, Level.KEPT, Level.NESTED]  # between whole calls and the smallest
LADDER = (1e-4, 1e-5, 1e-6)
EXACT = 1e-9
ROUNDED = 1e-7 if compat.comfy_kitchen else EXACT  # its fused kernels compute in fp32, ours do not


def at(level: Level, guider, shape, dtype=torch.float32, **probe) -> Probe:
    probe = Probe(level=level, **probe)
    probe.picture = sample(guider, probe, shape, dtype)
    if not probe.steps:  # plain samplings for the differences come after it and have no level
        assert set(probe.sampling.levels._used) == {level}
    return probe


@pytest.mark.parametrize("name", KNOWN)
def test_every_level_is_exact_on_every_family(name):
    """Against the gradient that test_families.py compares with central differences."""
    family = FAMILIES[name]
    with doubles():
        guider = families.guider(family, build(family, torch.float64))
        probes = {lv: at(lv, guider, family.latent, torch.float64) for lv in (*SLOW, Level.SPLIT)}
    for level, probe in probes.items():
        close = EXACT if level is Level.SPLIT else ROUNDED
        assert difference(probe.gradient, exact(name).gradient) < close, level
        assert torch.equal(probe.latent, exact(name).latent), level


@pytest.mark.parametrize("level", SLOW)
@pytest.mark.parametrize("name", SAMPLED)
def test_every_level_gives_comfyuis_picture(name, level):
    family = FAMILIES[name]
    with torch.inference_mode():
        guider = families.guider(family, build(family))
        plain = sample(guider, "euler", family.latent)
        probe = at(level, guider, family.latent)
        assert torch.equal(probe.picture, plain)
        assert torch.equal(sample(guider, "euler", family.latent), plain)


def with_block_index(model):
    """A patch that does something else in every block."""
    patched = model.clone()

    def attend(n, context, value, extra_options):
        factor = 1 + 0.1 * extra_options["transformer_index"] + 0.3 * extra_options["block"][1]
        return n, context, value * factor

    patched.set_model_attn2_patch(attend)
    return families.guider(FAMILIES["SD1.5"], patched)


def with_replaced_attention(model):
    """An attention override of the user's own, which differentiates."""
    patched = model.clone()
    patched.model_options["transformer_options"]["optimized_attention_override"] = (
        lambda function, q, k, v, *args, **kwargs: function(q * 0.7, k, v, *args, **kwargs)
    )
    return families.guider(FAMILIES["SD1.5"], patched)


MORE = [with_block_index, with_replaced_attention]


@pytest.mark.parametrize("patch", [*PATCHES, *MORE])
def test_the_smallest_level_is_exact_with_what_users_patch_onto_a_model(patch):
    family = FAMILIES["SD1.5"]
    with doubles():
        whole, small = (
            at(level, patch(build(family, torch.float64)), family.latent, torch.float64, steps=by)
            for level, by in ((Level.CALL, LADDER if patch in MORE else ()), (Level.SPLIT, ()))
        )
    assert not whole.errors or min(whole.errors) < 1e-8
    assert difference(small.gradient, whole.gradient) < EXACT
    assert torch.equal(small.latent, whole.latent)


@pytest.mark.parametrize("patch", [with_lora, with_controlnet, with_free_u])
@pytest.mark.parametrize("level", SLOW)
def test_every_level_is_exact_with_patches(patch, level):
    family = FAMILIES["SD1.5"]
    with doubles():
        whole, other = (
            at(lv, patch(build(family, torch.float64)), family.latent, torch.float64)
            for lv in (Level.CALL, level)
        )
    assert difference(other.gradient, whole.gradient) < EXACT


def test_weights_that_hooks_swap_are_not_recorded_but_computed_again_as_they_were():
    family = FAMILIES["SD1.5"]
    with doubles():
        whole = at(
            Level.CALL, with_hooks(build(family, torch.float64)), family.latent, torch.float64
        )
        wanted = {"automatic": Level.CALL, "blocks": Level.NESTED, "least": Level.CALL}
        for memory, level in wanted.items():
            probe = Probe(memory=memory)
            sample(with_hooks(build(family, torch.float64)), probe, family.latent, torch.float64)
            assert set(probe.sampling.levels._used) == {level}
            assert difference(probe.gradient, whole.gradient) < EXACT


def test_hooks_before_the_first_optimised_draw_need_no_gradient():
    family, gradients = FAMILIES["SD1.5"], {}
    for scope in ("all", "injected"):
        probe = Probe("euler_ancestral", memory="call", scope=scope)
        with doubles():
            sample(with_hooks(build(family, torch.float64)), probe, family.latent, torch.float64)
        gradients[scope] = probe.gradient
    assert difference(gradients["injected"], gradients["all"][1:]) < EXACT


def test_the_plan_is_the_fastest_that_fits():
    sizes = Sizes(record=1000, inputs=100, block=100, parts=2)
    assert plan(sizes, 10**6, 0, Level.RECORDED).count > 100
    assert plan(sizes, 3300, 0, Level.RECORDED) == Plan(Level.RECORDED, Level.CALL, 3)
    assert plan(sizes, 3300, 2000, Level.RECORDED) == Plan(Level.RECORDED, Level.CALL, 1)
    assert plan(sizes, 3300, 9000, Level.RECORDED) == Plan(Level.RECORDED, Level.CALL, 0)
    assert plan(sizes, 3300, 0, Level.CALL) == Plan(Level.RECORDED, Level.CALL, 0)
    assert plan(sizes, 1200, 0, Level.RECORDED) == Plan(Level.KEPT, Level.NESTED, 10)
    assert plan(sizes, 3300, 0, Level.NESTED) == Plan(Level.KEPT, Level.NESTED, 0)
    assert plan(sizes, 200, 0, Level.RECORDED) == Plan(Level.SPLIT, Level.SPLIT, 0)
    assert plan(sizes, 10**6, 0, Level.SPLIT) == Plan(Level.SPLIT, Level.SPLIT, 0)


@pytest.mark.parametrize(
    ("share", "fast"), [(10, Level.RECORDED), (0.6, Level.KEPT), (0.15, Level.SPLIT)]
)
def test_what_was_measured_decides(share, fast):
    """Of a real UNet: free memory as a multiple of what recording one evaluation keeps."""
    family = FAMILIES["SD1.5"]
    guider = families.guider(family, build(family))
    whole = Probe(memory="automatic")
    sample(guider, whole, family.latent)
    record = whole.sampling.levels.sizes.record
    probe = Probe(memory="automatic", free=int(share * record / levels.SHARE))
    sample(guider, probe, family.latent)
    sizes, used = probe.sampling.levels.sizes, probe.sampling.levels._used
    assert max(used, key=used.get) is fast, (sizes, used)
    assert sizes.peak(Level.SPLIT) < sizes.peak(Level.NESTED) < sizes.peak(Level.CALL)
    assert torch.equal(probe.latent, whole.latent)
    assert difference(probe.gradient, whole.gradient) < 1e-4


def test_out_of_memory_leads_from_one_level_to_the_next(caplog):
    """A network that runs out of memory wherever more than one block has a graph."""
    family, seen = FAMILIES["SD1.5"], []
    guider = families.guider(family, build(family))

    class Falling(Probe):
        def _probe(self, noise):
            self.sampling.levels.begin("automatic", 2**40, 0, 3, lambda recomputed: None)
            while True:
                self.sampling.render(noise)  # as if its backward had run out of memory
                seen.append(min(self.sampling.levels._used))
                if not self.sampling.levels.lower():
                    break
            super()._probe(noise)

    probe = Falling()
    sample(guider, probe, family.latent)
    assert seen == list(Level)
    assert caplog.text.count("goes on with less") == len(Level) - 1
    assert difference(probe.gradient, at(Level.CALL, guider, family.latent).gradient) < 1e-4


@pytest.mark.parametrize("memory", ["automatic", "blocks", "least"])
def test_the_first_evaluation_may_run_out_while_it_is_measured(memory, monkeypatch, caplog):
    """On a network that runs out of memory where a block has a graph of both prompts."""
    family = FAMILIES["SD1.5"]
    model = build(family)
    expected = at(Level.CALL, families.guider(family, model), family.latent).gradient
    block = model.model.diffusion_model.middle_block[0]
    forward, refused = block.forward, []

    def scarce(x, *others):
        if torch.is_grad_enabled() and len(x) > 1:
            refused.append(len(x))
            raise torch.OutOfMemoryError
        return forward(x, *others)

    class Falling(Probe):
        def _probe(self, noise):
            with pytest.raises(torch.OutOfMemoryError):
                super()._probe(noise)
            assert self.sampling.levels.lower()
            super()._probe(noise)

    monkeypatch.setattr(block, "forward", scarce)
    probe = Falling(memory=memory)
    sample(families.guider(family, model), probe, family.latent)
    assert refused == [2] and caplog.text.count("goes on with less") == 1
    assert set(probe.sampling.levels._used) == {Level.SPLIT}
    assert difference(probe.gradient, expected) < 1e-4


def test_whole_calls_that_stand_for_blocks_fall_too():
    """Where blocks do not repeat themselves, less than a whole call is one prompt alone."""
    chosen = levels.Levels([])
    chosen.begin("call", 2**40, 0, 1, lambda recomputed: None)
    chosen._by_block = False
    for _ in range(len(Level) - 2):
        chosen._used[chosen._level(steady=True)] += 1
        assert chosen.lower()
    assert chosen._level(steady=True) is Level.SPLIT and not chosen.lower()


def test_records_that_wait_can_be_lowered_while_neighbours_are_sampled():
    """As gradients are estimated: plainly, between a sampling and its backward."""
    family = FAMILIES["SD1.5"]

    class Beside(Probe):
        def _probe(self, noise):
            self.sampling.render(noise)
            with torch.no_grad():
                for _ in range(2):
                    self.sampling.render(noise)
                    assert not self.sampling.levels.rounded and not self.sampling.levels.words
            assert self.sampling.levels.lower()
            super()._probe(noise)

    probe = Beside(memory="recorded")
    sample(families.guider(family, build(family)), probe, family.latent)
    assert set(probe.sampling.levels._used) == {Level.CALL}


class Walked(nn.Module):
    """A network whose middle is walked from outside, as ComfyUI's UNet is."""

    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([self.stage(), nn.Sequential(nn.Linear(2, 2))])
        self.middle = self.stage()
        self.called = nn.ModuleList(
            [nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)]))]
        )
        self.head = nn.Sequential(nn.Linear(2, 2), nn.SiLU())

    @staticmethod
    def stage():
        stack = nn.Module()
        stack.layers = nn.ModuleList([nn.Sequential(nn.Linear(2, 2)) for _ in range(2)])
        stack.forward = lambda x: stack.layers[1](stack.layers[0](x))
        return nn.Sequential(nn.Sequential(nn.Linear(2, 2)), stack)

    def forward(self, x):
        for part in (*self.stages[0], self.stages[1], *self.middle):
            x = part(x)
        outer = self.called[0]
        return self.head(outer(x))


def test_blocks_are_found_by_structure():
    network = Walked()
    network.called[0].forward = lambda x: network.called[0][1][0](network.called[0][0](x))
    with calls_noted([network]) as called:
        network(torch.ones(1, 2))
    stage, middle = network.stages[0], network.middle
    expected = [stage[0], *stage[1].layers, network.stages[1], middle[0], *middle[1].layers]
    expected.append(network.called[0])
    assert list(map(id, find_blocks(network, called))) == list(map(id, expected))


def test_a_network_that_does_not_repeat_itself_by_blocks_falls_back_to_whole_calls(caplog):
    """A block that counts its calls, as one with a memory of its own would."""
    family = FAMILIES["Flux"]
    model = build(family)
    network = model.model.diffusion_model
    block = network.double_blocks[0]
    inner = type(block).forward
    counts = {"calls": 0}

    def counting(*args, **kwargs):
        counts["calls"] += 1
        img, txt = inner(block, *args, **kwargs)
        return img * counts["calls"], txt

    class Twice(Probe):
        def _probe(self, noise):
            for _ in range(2):
                super()._probe(noise)

    block.forward = counting
    probe = Twice(level=Level.KEPT)
    sample(families.guider(family, model), probe, family.latent)
    assert "does not repeat itself block by block" in caplog.text
    assert not probe.sampling.levels._by_block and block.forward is counting


def remembering(monkeypatch):
    """A UNet with a block that depends on what the network's call left in it, no argument."""
    model, left = tiny.unet(tiny.ModelType.FLOW), {}
    network = model.model.diffusion_model
    embed, block = network.time_embed, network.middle_block[0]
    forward, through = embed.forward, block.forward

    def noting(given):
        left["time"] = float(given[0, 0])
        return forward(given)

    monkeypatch.setattr(embed, "forward", noting)
    monkeypatch.setattr(block, "forward", lambda *given: through(*given) * (2 + left["time"]))
    return model


def test_the_iteration_that_shows_it_is_climbed_by_whole_calls_already(monkeypatch, caplog):
    expected, _ = climb(remembering(monkeypatch), memory="call", steps=3)
    plain, _ = climb(remembering(monkeypatch), memory="call", steps=3, iterations=0)
    latent, _ = climb(remembering(monkeypatch), memory="blocks", steps=3)
    assert caplog.text.count("does not repeat itself block by block") == 1
    moved = (expected - plain).abs().max()
    torch.testing.assert_close(latent, expected, rtol=0, atol=1e-3 * moved.item())


def mixing(model):
    """A patch whose attention sees the mean over the images and prompts of a call."""
    patched = model.clone()
    patched.set_model_attn1_output_patch(lambda out, options: out + 5 * out.mean(0, keepdim=True))
    return patched


def test_prompts_that_a_patch_mixes_are_pulled_together(monkeypatch, caplog):
    """One after the other, the network is given something else: seen, said, and done again."""
    monkeypatch.setattr(levels, "LEAST", 0)  # or these small records would all be kept
    model = tiny.unet(tiny.ModelType.FLOW)
    climb(model, memory="least", steps=3)
    assert "mixes the prompts" not in caplog.text
    plain, _ = climb(mixing(model), memory="call", steps=3, iterations=0)
    expected, _ = climb(mixing(model), memory="call", steps=3)
    latent, _ = climb(mixing(model), memory="least", steps=3)
    assert caplog.text.count("mixes the prompts") == 1 and "repeat itself" not in caplog.text
    moved = (expected - plain).abs().max()
    torch.testing.assert_close(latent, expected, rtol=0, atol=1e-3 * moved.item())

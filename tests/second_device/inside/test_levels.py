"""Levels of memory on a device that counts its bytes: what each takes, and the fall to the next."""

import gc

import comfy.model_management as management
import pytest
import torch

from ComfyUI_DNO.nodes.host.picture.decode import Decoder
from ComfyUI_DNO.nodes.host.sampling import levels
from ComfyUI_DNO.nodes.host.sampling.endings import OUT_OF_MEMORY
from ComfyUI_DNO.nodes.host.sampling.plan import WORDS, Level

from ...support import tiny, vaes
from ...support.family_probe import Probe, difference, sample
from ..climbing import climb, unload
from ..device import MEMORY
from ..streaming import one_buffer

SIDE, STEPS = 12, 3


def pulled(level: Level | None, probe: Probe | None = None):
    """(gradient on the CPU, bytes at the peak beside the weights) of a sampling at one level."""
    model = tiny.unet(tiny.ModelType.FLOW)
    probe = probe or Probe(level=level)
    with torch.inference_mode():
        management.load_models_gpu([model])
    before = MEMORY.used
    MEMORY.restart()
    sample(tiny.guider(model), probe, (4, SIDE, SIDE), steps=STEPS)
    return [part.cpu() for part in probe.gradient], MEMORY.peak - before


@pytest.fixture(scope="module")
def known():
    """What `pulled` gives, level by level."""
    found = {}
    for level in Level:
        found[level] = pulled(level)
        unload()
    return found


def test_every_level_gives_the_same_gradient(known):
    for level in Level:
        assert difference(known[level][0], known[Level.RECORDED][0]) < 1e-5


def test_every_level_takes_less_than_the_one_before(known):
    peaks = [known[level][1] for level in Level]
    recorded, call, kept, nested, split = peaks
    assert recorded > (STEPS - 1) * call
    assert kept < 0.5 * recorded
    assert nested < min(0.5 * call, 0.9 * kept)
    assert split < 0.7 * nested


@pytest.mark.parametrize("level", [Level.RECORDED, Level.KEPT, Level.SPLIT])
def test_every_level_is_exact_where_weights_come_and_go(level, known, monkeypatch):
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NO_VRAM)
    with one_buffer():
        got, _ = pulled(level)
    assert difference(got, known[Level.RECORDED][0]) < 1e-5


@pytest.fixture(scope="module")
def vae():
    """A decoder of which is known already what it takes: finding out takes more than a climb."""
    known = tiny.vae()
    climb(vae=known, side=SIDE, steps=1)
    return known


def peak_of(memory: str, vae) -> int:
    unload()
    MEMORY.restart()
    climb(vae=vae, memory=memory, side=SIDE, steps=STEPS)
    return MEMORY.peak


def falls(caplog) -> list[str]:
    """The levels that a climb fell to, in words."""
    told = [record for record in caplog.records if record.msg == levels.LOWERED]
    return [record.args[0] for record in told]


def test_out_of_memory_falls_to_the_next_level(monkeypatch, caplog, vae):
    expected, _ = climb(vae=vae, memory="recorded", side=SIDE, steps=STEPS)
    most = peak_of("recorded", vae)
    unload()
    monkeypatch.setattr(MEMORY, "budget", int(0.6 * most))
    latent, history = climb(vae=vae, memory="recorded", side=SIDE, steps=STEPS)
    assert len(history.records) == 2
    assert falls(caplog) == [WORDS[Level.CALL]]
    torch.testing.assert_close(latent, expected, rtol=1e-3, atol=1e-3)


class Falling(Probe):
    """Takes the gradient within so many bytes, and again with less as a climb does."""

    def __init__(self, memory: str, room: int):
        super().__init__(memory=memory)
        self._room = room

    def _probe(self, noise):
        MEMORY.budget = MEMORY.used + self._room
        while True:
            try:
                return super()._probe(noise)
            except management.OOM_EXCEPTION:
                if not self.sampling.levels.lower():
                    raise


@pytest.mark.parametrize(
    ("memory", "share", "of", "to"),
    [
        ("recorded", 0.45, Level.RECORDED, Level.CALL),
        ("call", 0.75, Level.CALL, Level.KEPT),
    ],
)
def test_what_does_not_fit_falls_once(memory, share, of, to, known, caplog):
    if memory == "recorded":  # nor may what failed wait for Python to collect garbage
        gc.disable()
    probe = Falling(memory, int(share * known[of][1]))
    try:
        gradient, _ = pulled(None, probe)
    finally:
        gc.enable()
    assert falls(caplog) == [WORDS[to]]
    assert set(probe.sampling.levels._used) == {to}
    assert difference(gradient, known[Level.RECORDED][0]) < 1e-5


def test_the_smallest_levels_failure_is_a_sentence(monkeypatch, caplog, vae):
    least = peak_of("least", vae)
    unload()
    monkeypatch.setattr(MEMORY, "budget", int(0.4 * least))
    with pytest.raises(management.OOM_EXCEPTION):
        climb(vae=vae, side=SIDE, steps=STEPS)
    assert OUT_OF_MEMORY in caplog.text


def test_automatic_stays_within_the_device(monkeypatch, vae):
    """What it plans from the first evaluation fits: nothing runs out on the way."""
    least = peak_of("least", vae)
    unload()
    monkeypatch.setattr(MEMORY, "budget", int(1.3 * least))
    raised = MEMORY.refused
    climb(vae=vae, side=SIDE, steps=STEPS)
    assert MEMORY.refused == raised


def test_records_leave_room_for_the_decoder_as_a_whole(monkeypatch, caplog):
    """It takes less than half of what is free, so that it is not decoded block by block."""
    model, large = tiny.unet(tiny.ModelType.FLOW), vaes.build("SD, SDXL")
    climb(model, large, side=8, steps=1)  # what decoding takes is known then
    whole, blocks, *_ = Decoder(large, lambda latent: latent)._measured().ways((1, 4, 8, 8))
    assert blocks.bytes < 0.6 * whole.bytes
    weights = model.model_size() + large.patcher.model_size()
    monkeypatch.setattr(MEMORY, "budget", weights + int(2.2 * whole.bytes))
    raised = MEMORY.refused
    climb(model, large, side=8, steps=16)  # more than can be recorded
    assert MEMORY.refused == raised and "decoder ran out" not in caplog.text

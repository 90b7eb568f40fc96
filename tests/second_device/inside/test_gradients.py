"""Gradients on the second device are those of the CPU, also where weights come and go."""

import comfy.model_management as management
import pytest

from ...support import families
from ...support.families import FAMILIES, build
from ...support.family_probe import Probe, difference, sample
from ..climbing import on_the_cpu
from ..streaming import one_buffer

IN_PLACE = ["Flux", "HunyuanVideo"]  # these write into tensors that autograd saved
KINDS = ["SD1.5", "SD3", "Z-Image", "Wan 2.1", "Qwen-Image", *IN_PLACE]


def gradient(name: str):
    """The gradient of a sampling by its noise, on the CPU."""
    probe = Probe()
    guider = families.guider(FAMILIES[name], build(FAMILIES[name]))
    sample(guider, probe, FAMILIES[name].latent, steps=2)
    return [part.cpu() for part in probe.gradient]


@pytest.fixture(scope="module")
def on_cpu():
    known = {}

    def find(name: str):
        if name not in known:
            with on_the_cpu():
                known[name] = gradient(name)
        return known[name]

    return find


@pytest.mark.parametrize("name", ["SD1.5", *IN_PLACE])
def test_weights_on_the_device(name, on_cpu):
    assert difference(gradient(name), on_cpu(name)) < 1e-4


@pytest.mark.parametrize("name", KINDS)
def test_weights_streamed_through_one_buffer(name, on_cpu, monkeypatch):
    """As with --novram in a ComfyUI with dynamic VRAM: what is kept of a weight is soon NaN."""
    monkeypatch.setattr(management, "vram_state", management.VRAMState.NO_VRAM)
    with one_buffer() as buffer:
        got = gradient(name)
    assert buffer.casts > 10 and buffer.spoilt >= buffer.casts // 2  # two may be in use together
    assert difference(got, on_cpu(name)) < 1e-4

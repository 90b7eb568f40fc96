"""The whole climb on a second device: the same numbers as on the CPU, and nothing left there."""

import inspect

import comfy.k_diffusion.sampling as sampling
import comfy.model_management as management
import pytest
import torch

from ...support import tiny
from ..climbing import Brightness, climb, on_the_cpu, tensors_in, unload
from ..device import MEMORY, NAME, Elsewhere

# Newer hosts draw other noise on the CPU than on a device, unless a Brownian motion does.
ELSEWHERE = "seed += 1" in inspect.getsource(sampling.default_noise_sampler)
drawn_alike = pytest.mark.skipif(ELSEWHERE, reason="other noise")
ANCESTRAL = pytest.param("euler_ancestral", marks=drawn_alike)


@pytest.mark.parametrize("sampler", [ANCESTRAL, "dpmpp_sde", "uni_pc"])
def test_it_climbs_as_on_the_cpu(sampler):
    model, vae = tiny.unet(tiny.ModelType.FLOW), tiny.vae()
    with Elsewhere() as elsewhere:
        latent, history = climb(model, vae, Brightness(NAME), sampler)
    assert not elsewhere.found
    with on_the_cpu():
        expected, reference = climb(sampler=sampler)
    assert latent.device.type == "cpu"
    torch.testing.assert_close(latent, expected, rtol=1e-3, atol=1e-3)  # another attention kernel
    assert len(history.records) == len(reference.records)


def test_what_is_kept_lies_in_ordinary_memory():
    _, history = climb()
    unload()
    assert {tensor.device.type for tensor in tensors_in(history)} == {"cpu"}
    assert MEMORY.used < 2**12  # a record of an evaluation takes megabytes


def test_room_is_kept_for_the_vae_and_for_the_level(monkeypatch):
    """ComfyUI fills a device with the model, up to what is asked to be kept free."""
    load, asked = management.load_models_gpu, []

    def noting(models, memory_required=0, minimum_memory_required=None, **named):
        asked.append((memory_required, minimum_memory_required))
        load(models, memory_required, minimum_memory_required=minimum_memory_required, **named)

    monkeypatch.setattr(management, "load_models_gpu", noting)
    needed = {}

    def ask(memory, named):
        unload()
        vae, asked[:] = tiny.vae(), []
        climb(vae=vae, memory=memory, side=24)
        own = [each for each in asked if each[1] is not None and each[1] > each[0]]
        ((needed[named], kept),) = own
        assert kept == needed[named] + vae.patcher.model_size()

    ask("least", "least")
    ask("call", "call")
    assert needed["call"] > 5 * needed["least"]
    monkeypatch.setattr(MEMORY, "budget", needed["call"])  # the weights would not stay
    ask("call", "capped")
    assert needed["capped"] < 0.2 * needed["call"]

"""The whole climb on a second device: the same numbers as on the CPU, and nothing left there."""

import pytest
import torch

from ...support import tiny
from ..climbing import Brightness, climb, on_the_cpu, tensors_in, unload
from ..device import MEMORY, NAME, Elsewhere


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_sde", "uni_pc"])
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

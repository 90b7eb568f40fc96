"""Draws that repeat: torch's generator on the CPU, and a device's own however it is asked."""

from types import SimpleNamespace

import pytest
import torch

from ComfyUI_DNO.dno.autograd import generators
from ComfyUI_DNO.dno.autograd.generators import TorchGenerators, same_draws

MPS = torch.device("mps")


@pytest.fixture(params=["newer", "older"])
def device(request, monkeypatch):
    """A device with a generator of its own; with an older torch that of MPS is asked without it."""
    own = torch.Generator().manual_seed(3)
    older = SimpleNamespace(
        get_rng_state=lambda: own.get_state(),
        set_rng_state=lambda state: own.set_state(state),
        manual_seed=own.manual_seed,
    )
    newer = SimpleNamespace(
        get_rng_state=lambda device="mps": own.get_state(),
        set_rng_state=lambda state, device="mps": own.set_state(state),
        manual_seed=own.manual_seed,
    )
    monkeypatch.setattr(torch, "mps", newer if request.param == "newer" else older)
    generators._own.cache_clear()
    yield own
    generators._own.cache_clear()


def drawn(own):
    return torch.cat([torch.rand(2), torch.rand(2, generator=own)])


def test_both_generators_go_back_and_then_on(device):
    then = TorchGenerators.now(MPS)
    first, second = drawn(device), drawn(device)
    then.restore()
    assert torch.equal(drawn(device), first)
    with then.during():
        assert torch.equal(drawn(device), first)
    assert torch.equal(drawn(device), second)


def test_an_error_within_leaves_them_where_they_were(device):
    then = TorchGenerators.now(MPS)
    with pytest.raises(ValueError), then.during():
        drawn(device)
        raise ValueError
    first = drawn(device)
    then.restore()
    assert torch.equal(drawn(device), first)


def test_the_same_draws_every_time(device):
    found, then = [], TorchGenerators.now(MPS)
    for _ in range(2):
        with same_draws(MPS):
            found.append(drawn(device))
    assert torch.equal(*found)
    following = drawn(device)
    then.restore()
    assert torch.equal(drawn(device), following)

"""Networks computed again block by block: exact for all that ComfyUI's blocks do with arguments."""

import weakref
from contextlib import contextmanager
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from ComfyUI_DNO.dno.autograd.blocks import by_block
from ComfyUI_DNO.dno.autograd.graph import HiddenInputError
from ComfyUI_DNO.dno.autograd.recompute import Recomputer


@dataclass
class Modulation:
    shift: torch.Tensor
    scale: torch.Tensor
    name: str = "double"


class Streams(nn.Module):
    """Two streams that carry the gradient, one written to in place, a dataclass, a None."""

    def forward(self, image, text, modulation, mask=None):
        saved = image * image
        image += saved.sin() * modulation.scale
        return image, (text * image.mean() + modulation.shift, None)


class Indexed(nn.Module):
    """Reads which block it is from options that change from block to block."""

    def forward(self, x, transformer_options={}):  # noqa: B006
        transformer_options["seen"] = transformer_options.get("seen", 0) + 1
        return (x * (1 + transformer_options["block_index"])).sin()


class Caching(nn.Module):
    """Leaves a frame in a list, as Wan's decoder does, and a tensor in its options."""

    def forward(self, x, cache, options):
        older = cache[-1] if cache else x
        cache.append(x.sin())
        options["last"] = {"frame": x * x}
        return x * older


class Random(nn.Module):
    def forward(self, x):
        return x * torch.rand_like(x)


class Views(nn.Module):
    """Returns its input as it is, and two views of one tensor."""

    def forward(self, x, y):
        return (
            y,
            *torch.cat([x * y, x + y]).chunk(2),
        )


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(
            [Streams(), Streams(), Indexed(), Indexed(), Caching(), Caching(), Random(), Views()]
        )

    def forward(self, x):
        b, options, cache = self.blocks, {"block_index": 0, "nested": {"list": [x]}}, []
        image, text = x * 0.5, x[:1] * 0.6
        for block in b[:2]:
            image, (text, nothing) = block(
                image, text, modulation=Modulation(text.mean(), image.mean()), mask=nothing_yet()
            )
            assert nothing is None
        image[:, 1:] += text[:, 1:]  # what ControlNets do between blocks
        for index, block in enumerate(b[2:4]):
            options["block_index"] = index
            image = block(image, transformer_options=options)
        assert options["seen"] == 2
        for block in b[4:6]:
            image = block(image, cache, options=options)
        image = image + options["last"]["frame"] * cache[0]
        image = b[6](image)
        same, first, second = b[7](image, text)
        same = same + 1
        first += second  # views are written to
        return (first * same).cos()


def nothing_yet():
    return torch.ones(2, dtype=torch.int)


def remember():
    """The generator's state, as a host keeps it."""
    state = torch.get_rng_state()

    @contextmanager
    def again():
        present = torch.get_rng_state()
        torch.set_rng_state(state)
        try:
            yield
        finally:
            torch.set_rng_state(present)

    return again


def inputs():
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2)]


def slope(function, x, direction):
    """Central differences of fourth order of the sum of `function`, without autograd."""

    def difference(step):
        ahead, behind = (function(x + sign * step * direction).sum() for sign in (1, -1))
        return (ahead - behind) / (2 * step)

    with torch.no_grad():
        return (4 * difference(1e-4) - difference(2e-4)) / 3


def seeded(network):
    def run(x):
        torch.manual_seed(1)
        return network(x)

    return run


@pytest.mark.parametrize("nested", [False, True], ids=["kept", "nested"])
@pytest.mark.parametrize("measured", [False, True], ids=["", "measured"])
def test_the_gradient_is_exact_in_every_evaluation(nested, measured):
    network, (x, direction) = Network(), inputs()
    run = seeded(network)
    expected, exact = run(x.clone()), slope(run, x, direction)
    whole = Recomputer(remember=remember)
    with by_block(network.blocks, remember=remember) as blocks:
        for _ in range(3):
            leaf = x.clone().requires_grad_()
            with blocks.switched(True, measuring=measured):
                out = whole(lambda t: (run(t),), leaf)[0] if nested else run(leaf)
            (gradient,) = torch.autograd.grad(out.sum(), leaf)
            assert torch.equal(out.detach(), expected)
            torch.testing.assert_close((gradient * direction).sum(), exact, rtol=1e-9, atol=1e-9)
    assert len(blocks.sizes) == len(network.blocks)


def test_only_the_inputs_are_kept():
    class Wide(nn.Module):
        def forward(self, x):
            return x.repeat(1, 50).sin().reshape(3, 50, 4).mean(1)

    network, x = nn.Sequential(Wide(), Wide()), torch.ones(3, 4, requires_grad=True)
    kept = []
    hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t)
    with by_block(network) as blocks:
        with hooks:
            out = network(x)
        torch.autograd.grad(out.sum(), x)
        assert max(tensor.numel() for tensor in kept) == 12
        with blocks.switched(True, measuring=True):
            torch.autograd.grad(network(x).sum(), x)
        assert all(size >= 50 * 12 * 4 for size in blocks.sizes)


def test_no_tensor_outlives_the_backward():
    network, x = Network(), inputs()[0].requires_grad_()
    with by_block(network.blocks, remember=remember):
        inner = x * 1
        out = seeded(network)(inner)
        alive = weakref.ref(inner)
        torch.autograd.grad(out.sum(), x)
        del inner, out
    assert alive() is None


def test_a_forward_is_put_back_as_it_was():
    network = Network()
    first, second = network.blocks[:2]
    first.forward = own = lambda *args, **kwargs: Streams.forward(first, *args, **kwargs)
    with pytest.raises(KeyError), by_block(network.blocks):
        assert first.forward is not own and "forward" in vars(second)
        raise KeyError
    assert first.forward is own and "forward" not in vars(second)


def test_a_tensor_that_comes_from_behind_is_not_lost():
    """A patch that holds on to a tensor with a gradient: no argument tells of it."""

    class Patched(nn.Module):
        def forward(self, x):
            return x * self.kept

    block, (x, direction) = Patched(), inputs()

    def run(x):
        block.kept = x.sin()
        return block(x * 2)

    exact, leaf = slope(run, x, direction), x.clone().requires_grad_()
    with by_block([block]) as blocks:
        with pytest.raises(HiddenInputError, match="not among its arguments"):
            torch.autograd.grad(run(leaf).sum(), leaf)
        with blocks.switched(True, measuring=True):
            (gradient,) = torch.autograd.grad(run(leaf).sum(), leaf)
    torch.testing.assert_close((gradient * direction).sum(), exact, rtol=1e-9, atol=1e-9)


def test_what_does_not_repeat_itself_is_told():
    told = []
    block, x = Random(), torch.ones(3, 4, requires_grad=True)
    for remembered, count in ((None, 1), (remember, 0)):
        told.clear()
        recomputer = Recomputer(remember=remembered, differs=told.append)
        torch.autograd.grad(recomputer(lambda t: (block(t),), x)[0].sum(), x)
        recomputer.restart()
        assert len(told) == count

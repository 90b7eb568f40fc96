"""Recomputation is exact where torch's tools are not: on calls that write into saved tensors."""

import gc
import weakref

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from ComfyUI_DNO.dno.autograd.recompute import Recomputer
from ComfyUI_DNO.dno.autograd.saved import insist_on_writes_allowed, writes_allowed


def writes_residuals(x):
    """What Flux's blocks do: the branch saves the stream, then the stream is written to."""
    stream = x * 1.5
    for _ in range(2):
        branch = (stream * stream).sin()
        stream += branch
    return stream


def writes_around_a_slice(x):
    """A slice is saved, then the whole is written to."""
    stream = x * 1.5
    branch = stream[:, 1:] ** 3
    stream += 5
    return stream[:, 1:] + branch


def writes_into_a_result(x):
    """exp saves its result, which is then written to."""
    result = x.exp()
    kept = result * 2
    result.mul_(x)
    return kept + result


def writes_into_its_input(x):
    square = x**2
    x += 1
    return square + x


def writes_by_out(x):
    """`out=` is a write as well."""
    saved = x * 1.5
    square = saved**2
    with torch.no_grad():
        torch.exp(saved.detach(), out=saved.detach())
    return square


def writes_through_data(x):
    """What ComfyUI's hooks do to weights between two prompts: autograd's counters do not see it."""
    weight = torch.full_like(x, 1.5)
    first = weight * x
    weight.data.copy_(weight * 2)
    return first * (weight * x)


CALLS = [
    writes_residuals,
    writes_around_a_slice,
    writes_into_a_result,
    writes_into_its_input,
    writes_by_out,
    writes_through_data,
]


def slope(function, x, direction):
    """Central differences of the sum of `function`, without autograd."""
    with torch.no_grad():
        step = 1e-6
        ahead, behind = (function(x + sign * step * direction).sum() for sign in (1, -1))
    return (ahead - behind) / (2 * step)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("backward", ["first", "second"])
def test_calls_that_write_in_place_are_exact(call, backward):
    generator = torch.Generator().manual_seed(0)
    x, direction = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    recomputer = Recomputer()
    for _ in range(1 if backward == "first" else 2):
        leaf = x.clone().requires_grad_()
        (out,) = recomputer(lambda tensor: (call(tensor),), leaf)
        (gradient,) = torch.autograd.grad(out.sum(), leaf)
    expected = slope(call, x, direction)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(out.detach(), call(x.clone()))


def test_torch_itself_is_wrong_here():
    """Why the pack has its own: if these ever pass, torch's tools can take over."""
    x = torch.ones(1, 4, dtype=torch.float64, requires_grad=True)
    exact = slope(writes_around_a_slice, x.detach(), torch.ones_like(x))
    with torch.autograd.graph.allow_mutation_on_saved_tensors():
        (gradient,) = torch.autograd.grad(writes_around_a_slice(x.clone()).sum(), x)
    assert abs(gradient.sum() - exact) > 1
    out = checkpoint(writes_residuals, x, use_reentrant=False)
    (gradient,) = torch.autograd.grad(out.sum(), x)
    exact = slope(writes_residuals, x.detach(), torch.ones_like(x))
    assert abs(gradient.sum() - exact) > 0.1


def test_memory_reused_after_a_write_is_told_apart():
    """Tensors come and go at the same address; each keeps what it was saved with."""
    x = torch.full((1000,), 2.0, requires_grad=True)
    with writes_allowed():
        total = 0
        for factor in range(1, 6):
            stream = x * factor
            total = total + (stream**2).sum()
            stream.zero_()
            del stream
        (gradient,) = torch.autograd.grad(total, x)
    assert torch.equal(gradient, torch.full_like(x, 2 * 2.0 * (1 + 4 + 9 + 16 + 25)))


@pytest.mark.parametrize("call", CALLS)
def test_what_a_call_needs_is_known_when_it_is_recorded_outright(call):
    generator = torch.Generator().manual_seed(0)
    x, direction = (torch.randn(3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    recomputer, leaf = Recomputer(), x.clone().requires_grad_()
    torch.autograd.grad(recomputer(lambda tensor: (call(tensor),), leaf)[0].sum(), leaf)
    with recomputer.graph():
        out = call(leaf.clone()).sum()
    (gradient,) = torch.autograd.grad(out, leaf)
    expected = slope(call, x, direction)
    torch.testing.assert_close((gradient * direction).sum(), expected, rtol=1e-7, atol=1e-7)


def test_a_write_after_the_record_is_not_overlooked():
    """torch does not compare versions where saved tensors have hooks."""
    recomputer, x = Recomputer(), torch.ones(4, requires_grad=True)
    torch.autograd.grad(recomputer(lambda t: (writes_residuals(t),), x)[0].sum(), x)
    stream = x * 2
    with recomputer.graph():
        out = (stream**2).sum()
    stream.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(out, x)


def test_outputs_are_pulled_one_after_the_other():
    recomputer, x = Recomputer(), torch.ones(4, requires_grad=True)
    recorded = []

    def call(tensor):
        recorded.append(torch.is_grad_enabled())
        return tensor.sin(), tensor.exp()

    def alone(function):
        return lambda tensor: (function(tensor),)

    first, second = recomputer(call, x, alone=[alone(torch.sin), alone(torch.exp)])
    (gradient,) = torch.autograd.grad((first * 2 + second * 3).sum(), x)
    torch.testing.assert_close(gradient, 2 * x.cos() + 3 * x.exp())
    assert recorded == [False]


def test_what_can_be_had_again_is_not_kept():
    """A weight that was cast for one product, over memory that the next cast overwrites."""
    buffer = torch.empty(4)
    weights = [torch.arange(4.0), torch.arange(4.0) + 1]
    fetched = []

    def cast(index):
        return buffer.copy_(weights[index]).view(4)

    def again(tensor):
        if tensor.untyped_storage().data_ptr() != buffer.data_ptr():
            return None
        index = fetched.pop()
        return lambda: cast(index).clone()

    def call(x):
        for index in (0, 1):
            fetched.append(index)
            with torch.no_grad():
                weight = cast(index).detach()
            x = x * torch.empty(0).set_(weight.untyped_storage(), 0, (4,), (1,))
        return (x,)

    recomputer, x = Recomputer(again=again), torch.ones(4, requires_grad=True)
    for _ in range(2):
        (gradient,) = torch.autograd.grad(recomputer(call, x)[0].sum(), x)
        torch.testing.assert_close(gradient, weights[0] * weights[1])


def test_a_write_that_comes_later_is_seen_as_well():
    """The first call is watched; the others, saved by plain autograd, by its version counters."""
    recomputer, x = Recomputer(), torch.ones(4, requires_grad=True)
    torch.autograd.grad(recomputer(lambda tensor: (tensor.sin(),), x)[0].sum(), x)
    assert not recomputer.remedies
    out = recomputer(lambda tensor: (writes_residuals(tensor),), x)[0].sum()
    (gradient,) = torch.autograd.grad(out, x)
    assert recomputer.remedies
    x = x.detach().double()
    expected = slope(writes_residuals, x, torch.ones_like(x))
    torch.testing.assert_close(gradient.sum().double(), expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_seen_can_be_said():
    def swaps_weights(x):
        if torch.is_grad_enabled():
            insist_on_writes_allowed()
        return (writes_through_data(x),)

    recomputer, x = Recomputer(), torch.ones(4, requires_grad=True)
    torch.autograd.grad(recomputer(lambda tensor: (tensor.sin(),), x)[0].sum(), x)
    (gradient,) = torch.autograd.grad(recomputer(swaps_weights, x)[0].sum(), x)
    torch.testing.assert_close(gradient, torch.full_like(x, 2 * 1.5 * 3))


def test_an_error_of_the_model_is_not_swallowed():
    def broken(x):
        if torch.is_grad_enabled():
            raise RuntimeError("the model's own")
        return (x,)

    x = torch.ones(2, requires_grad=True)
    out = Recomputer()(broken, x)[0].sum()
    with pytest.raises(RuntimeError, match="the model's own"):
        out.backward()


@pytest.mark.parametrize("where", ["record", "measured", "backward"])
def test_what_an_error_leaves_behind_is_gone_with_it(where):
    """Tensors by the gigabyte would else wait for Python to collect garbage."""
    left = []

    def fails(x):
        if torch.is_grad_enabled():
            large = x * 2
            left.append(weakref.ref(large))
            raise torch.OutOfMemoryError
        return (x * 1,)

    recomputer, x = Recomputer(), torch.ones(2, requires_grad=True)
    recomputer.measuring = where == "measured"
    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            out = recomputer.record(fails, x) if where == "record" else recomputer(fails, x)
            torch.autograd.grad(out[0].sum(), x)
        assert left and not any(large() is not None for large in left)
    finally:
        gc.enable()

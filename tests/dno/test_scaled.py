"""Gradients through half precision: scaled image by image, without any rounding of their own."""

import doctest

import pytest
import torch
from torch.nn.functional import cosine_similarity

from ComfyUI_DNO.dno.autograd import scaled as module
from ComfyUI_DNO.dno.autograd.recompute import Recomputer
from ComfyUI_DNO.dno.autograd.scaled import scaled


def narrow(x):
    """A call that computes in fp16."""
    return ((x.half() * 0.5).sin() * 2).float()


def slope(call, x, pull):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(call(x), x, pull)[0]


def batch(rows=3):
    return torch.randn(rows, 5, generator=torch.Generator().manual_seed(0))


def test_the_example_holds():
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("size", [2.0**-60, 2.0**-30, 1.0, 2.0**30])
def test_a_gradient_of_any_size_comes_through(size):
    x, pull = batch(), torch.full((3, 5), size)
    exact = slope(lambda x: (x * 0.5).sin() * 2, x, pull)
    torch.testing.assert_close(slope(scaled(narrow), x, pull), exact, rtol=5e-3, atol=0)
    plain = slope(narrow, x, pull)
    assert (size == 1) is torch.allclose(plain, exact, rtol=5e-3, atol=0)


def test_every_image_has_a_factor_of_its_own():
    x, sizes = batch(), torch.tensor([[1.0], [2.0**-40], [2.0**20]])
    pull = sizes.expand(3, 5)
    exact = slope(lambda x: (x * 0.5).sin() * 2, x, pull)
    torch.testing.assert_close(slope(scaled(narrow), x, pull), exact, rtol=5e-3, atol=0)


def test_a_call_that_mixes_images_has_one_factor():
    def mixed(x, narrow=narrow):
        return narrow(x + x.flip(0))

    x, pull = batch(), torch.tensor([[1.0], [2.0**-6], [2.0**-10]]).expand(3, 5) * 2.0**-40
    exact = slope(lambda x: mixed(x, lambda x: (x * 0.5).sin() * 2), x, pull)
    got = slope(scaled(mixed, apart=False), x, pull)
    torch.testing.assert_close(got, exact, rtol=1e-2, atol=0)
    assert not torch.allclose(slope(scaled(mixed), x, pull), exact, rtol=0.5, atol=0)


def test_in_single_precision_it_changes_no_bit():
    x, pull = batch(), batch() * torch.tensor([[1e-20], [0.0], [1e6]])
    assert torch.equal(slope(scaled(torch.tanh), x, pull), slope(torch.tanh, x, pull))


def test_several_outputs_share_the_factor_and_one_without_a_gradient_is_none_of_it():
    def call(x):
        return x.half().float() * 2, (x.half() ** 2).float(), x.half().float()

    x = batch().requires_grad_()
    first, second, _ = scaled(call)(x)
    pulls = [torch.full((3, 5), 2.0**-40), torch.full((3, 5), 2.0**-42)]
    (gradient,) = torch.autograd.grad([first, second], x, pulls)
    exact = 2 * pulls[0] + 2 * x.detach() * pulls[1]
    torch.testing.assert_close(gradient, exact, rtol=5e-3, atol=0)


def test_outputs_of_other_rows_make_one_factor():
    x = batch().requires_grad_()
    out = scaled(lambda x: x.half().float().sum(0))(x)
    (gradient,) = torch.autograd.grad(out, x, torch.full((5,), 2.0**-40))
    assert torch.equal(gradient, torch.full((3, 5), 2.0**-40))


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_zeros_and_what_is_not_a_number_stay_what_they_are(value):
    gradient = slope(scaled(lambda x: x * 1), batch(), torch.full((3, 5), value))
    torch.testing.assert_close(gradient, torch.full((3, 5), value), equal_nan=True)


def test_a_recomputed_call_is_scaled_the_same_way():
    x, pull = batch(), torch.full((3, 5), 2.0**-40)
    call = scaled(narrow)
    recomputer = Recomputer()
    gradient = slope(lambda x: recomputer(lambda given: (call(given),), x)[0], x, pull)
    assert torch.equal(gradient, slope(call, x, pull))
    assert cosine_similarity(gradient.flatten(), x.flatten().cos(), dim=0).isfinite()


def test_without_a_gradient_the_call_is_called_as_it_is():
    seen = []
    x = batch()
    scaled(lambda given: seen.append(given) or given)(x)
    assert seen[0] is x

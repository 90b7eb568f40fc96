"""What holds for every regularizer; a new one is picked up from REGULARIZERS without an edit."""

import dataclasses
import inspect

import pytest
import torch

from ComfyUI_DNO.dno.fields import Range, fields_of
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.regularizers import REGULARIZERS

from ..support.examples import gaussian, gradients

every = pytest.mark.parametrize("cls", REGULARIZERS, ids=lambda cls: cls.__name__)


@every
def test_is_a_frozen_dataclass_with_documented_bounded_fields(cls):
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    summary = inspect.getdoc(cls).split("\n\n")[0]
    assert summary.count(". ") == 0 and summary.endswith(".")
    for name, (metadata, default) in fields_of(cls).items():
        assert metadata.help, name
        if isinstance(metadata, Range):
            assert metadata.minimum <= default <= metadata.maximum
            with pytest.raises(ValueError, match=rf"^{cls.__name__}: {name} is"):
                cls(**{name: metadata.maximum + 1})


@every
@pytest.mark.parametrize(
    "shape",
    [(4, 16, 16), (4, 9, 16), (16, 13, 7), (4, 1, 8), (4, 8, 1), (4, 1, 1), (4, 3, 8, 8)],
    ids=str,
)
def test_gives_one_score_per_image_for_every_shape_of_noise(cls, shape):
    noise = gaussian(3, *shape, count=3, scale=1.3)
    score = cls()(noise)
    assert score.shape == (3,)
    assert score.dtype == torch.float32
    assert (score <= 0).all()
    assert all(torch.isfinite(slope).all() for slope in gradients(cls(), noise))
    assert cls().indicator(noise).shape == (3,)
    assert not cls().indicator(noise).requires_grad


@every
def test_noise_off_the_typical_set_scores_less_and_climbs_back(cls):
    noise = gaussian(2, 4, 16, 16, count=2, scale=1.3)
    before = cls()(noise)
    assert (before < 3 * cls()(gaussian(2, 4, 16, 16, count=2))).all()
    for _ in range(30):
        slopes = gradients(cls(), noise)
        with torch.no_grad():
            for leaf, slope in zip(noise.leaves(), slopes, strict=True):
                length = slope.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, 1, 1, 1)
                leaf += 0.5 * slope / length
    assert (cls()(noise) > before / 2).all()


@every
def test_gradient_is_that_of_finite_differences(cls):
    tensors = [leaf.detach().double() for leaf in gaussian(2, 2, 6, 5, count=2, scale=1.4).leaves()]

    def score(*leaves):
        noise = Noise(leaves[0], leaves[1:])
        noise.initial, noise.injected = leaves[0], list(leaves[1:])
        return cls()(noise)

    leaves = [tensor.requires_grad_() for tensor in tensors]
    assert score(*leaves).dtype == torch.float64
    assert torch.autograd.gradcheck(score, leaves, eps=1e-6, atol=1e-6, rtol=1e-4)


@every
def test_an_image_does_not_depend_on_its_neighbours(cls):
    noise = gaussian(3, 4, 16, 16, count=2, scale=1.2)
    together, alone = cls()(noise), torch.cat([cls()(row) for row in noise.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)
    rows = [gradients(cls(), row) for row in noise.split(1)]
    for position, slope in enumerate(gradients(cls(), noise)):
        expected = torch.cat([row[position] for row in rows])
        torch.testing.assert_close(slope, expected, rtol=1e-3, atol=1e-6)


@every
def test_is_a_fixed_function_of_the_noise(cls):
    noise = gaussian(2, 4, 8, 8, scale=1.2)
    first = cls()(noise)
    torch.rand(5)
    assert torch.equal(cls()(noise), first)
    assert torch.equal(cls()(noise.snapshot()), first)


@every
def test_computes_in_single_precision_whatever_the_noise(cls):
    half = gaussian(2, 4, 16, 16, scale=1.2, dtype=torch.bfloat16)
    single = Noise(half.initial.float())
    assert torch.equal(cls()(half), cls()(single))
    assert gradients(cls(), half)[0].dtype == torch.bfloat16


@every
def test_only_what_is_optimised_counts(cls):
    noise = gaussian(2, 4, 16, 16, count=3, scale=1.2)
    initial = Noise(noise.initial, noise.injected, scope="initial")
    assert torch.equal(cls()(initial), cls()(Noise(noise.initial)))


@every
def test_a_call_in_inference_mode_does_not_spoil_later_gradients(cls):
    with torch.inference_mode():
        cls()(gaussian(1, 3, 11, 10, scale=1.3))
    slope = gradients(cls(), gaussian(1, 3, 11, 10, scale=1.3))[0]
    assert slope.abs().sum() > 0


@every
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_constant_noise_has_a_finite_gradient(cls, value):
    noise = Noise(torch.full((2, 4, 8, 8), value))
    assert all(torch.isfinite(slope).all() for slope in gradients(cls(), noise))

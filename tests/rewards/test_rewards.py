"""What holds for every reward; a new one is picked up from REWARDS without an edit here."""

import dataclasses
import inspect

import pytest
import torch

from ComfyUI_DNO.dno.fields import Choice, Range, fields_of
from ComfyUI_DNO.dno.objective import Reward
from ComfyUI_DNO.rewards import REWARDS

from ..support.examples import build, kinds_of, picture
from ..support.tiny_judges import SINGLE

DIFFERENTIABLE = [cls for cls in REWARDS if cls.differentiable]
DOUBLE = [cls for cls in DIFFERENTIABLE if not SINGLE & {kind.title for kind in kinds_of(cls)}]


def every(classes):
    return pytest.mark.parametrize("cls", classes, ids=lambda cls: cls.__name__)


def scorer(cls):
    """The reward; one of latents is given a picture's channels and their mean."""
    reward = build(cls)
    if reward.space == "image":
        return reward
    return lambda image: reward(torch.cat([image, image.mean(1, keepdim=True)], 1))


def gradient(reward, image):
    image = image.clone().requires_grad_()
    (slope,) = torch.autograd.grad(reward(image).sum(), image)
    return slope


@every(REWARDS)
def test_is_a_frozen_dataclass_that_declares_its_gradient_and_documents_its_score(cls):
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen
    assert isinstance(build(cls), Reward)
    assert isinstance(cls.differentiable, bool)
    assert cls.group in ("tone and colour", "structure", "learned", "files")
    assert cls.aliases and cls.span
    summary, *details = inspect.getdoc(cls).split("\n\n")
    assert summary.count(". ") == 0 and summary.endswith(".")
    assert "Score:" in " ".join(details)


@every(REWARDS)
def test_fields_have_help_and_defaults_within_their_bounds(cls):
    for name, (metadata, default) in fields_of(cls).items():
        assert metadata.help, name
        if isinstance(metadata, Range):
            assert metadata.minimum <= default <= metadata.maximum
        if isinstance(metadata, Choice):
            assert default in metadata.options


@every(REWARDS)
def test_a_number_or_choice_out_of_bounds_is_named(cls):
    for name, (metadata, _) in fields_of(cls).items():
        if isinstance(metadata, Range):
            wrong = [metadata.minimum - 1, metadata.maximum + 1, float("nan")]
        elif isinstance(metadata, Choice):
            wrong = ["no such choice"]
        else:
            continue
        for value in wrong:
            with pytest.raises(ValueError, match=rf"^{cls.__name__}: {name} is"):
                build(cls, **{name: value})


@every(REWARDS)
@pytest.mark.parametrize("size", [(24, 32), (33, 17), (8, 8), (5, 64)])
def test_gives_one_finite_score_per_image_of_any_size(cls, size):
    reward = scorer(cls)(picture(3, *size))
    assert reward.shape == (3,)
    assert reward.dtype == torch.float32
    assert torch.isfinite(reward).all()


@every(REWARDS)
def test_leaves_the_picture_as_it_was(cls):
    image = picture()
    before = image.clone()
    scorer(cls)(image)
    assert torch.equal(image, before)


@every(REWARDS)
def test_an_image_does_not_depend_on_its_neighbours(cls):
    reward, image = scorer(cls), picture(3)
    alone = torch.cat([reward(image[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(reward(image), alone, rtol=1e-5, atol=1e-6)
    other = torch.cat([image[:1], 1 - image[1:]])
    torch.testing.assert_close(reward(other)[0], alone[0], rtol=1e-5, atol=1e-6)


@every(DOUBLE)
def test_gradient_is_that_of_finite_differences(cls):
    reward = scorer(cls)
    image = picture(2, 9, 8, dtype=torch.float64).requires_grad_()
    assert reward(image).dtype == torch.float64
    assert torch.autograd.gradcheck(reward, image, eps=1e-6, atol=1e-6, rtol=1e-4)


@every(DIFFERENTIABLE)
@pytest.mark.parametrize("level", [0.0, 0.04045, 0.5, 1.0, "random", "binary"])
def test_gradient_is_finite_everywhere(cls, level):
    if level == "random":
        image = picture(2)
    elif level == "binary":
        image = (picture(2) > 0.5).float()
    else:
        image = torch.full((2, 3, 24, 32), level)
    assert torch.isfinite(gradient(scorer(cls), image)).all()


@every(DIFFERENTIABLE)
def test_climbing_the_gradient_raises_every_score(cls):
    reward, image = scorer(cls), picture(2)
    before = reward(image)
    for _ in range(20):
        slope = gradient(reward, image)
        steepest = slope.flatten(1).abs().amax(1).view(-1, 1, 1, 1)
        assert (steepest > 0).all()
        image = (image + 0.003 * slope / steepest).clamp(0, 1)
    assert (reward(image) > before).all()


@every([cls for cls in REWARDS if not cls.differentiable])
def test_a_reward_without_a_gradient_scores_a_picture_that_carries_one(cls):
    reward = scorer(cls)(picture().requires_grad_())
    assert not reward.requires_grad

"""What makes a reward of a reward: Clamp, Target, Negate, Normalise, Mask, Crop, and Minimum."""

import inspect

import pytest
import torch

from ComfyUI_DNO.dno.objective import Objective, Reward, Weighted
from ComfyUI_DNO.nodes import combine, rewards
from ComfyUI_DNO.rewards import (
    MODIFIERS,
    Brightness,
    Clamp,
    Contrast,
    Crop,
    Darkness,
    JPEGCompressibility,
    Mask,
    Minimum,
    Negate,
    Normalise,
    Target,
)

from ..support.examples import build, mask, picture

every = pytest.mark.parametrize("cls", MODIFIERS, ids=lambda cls: cls.__name__)


@every
def test_a_modifier_makes_a_reward(cls):
    modified, image = build(cls)(Contrast()), picture(3)
    assert isinstance(modified, Reward)
    assert modified.differentiable is True
    assert build(cls)(JPEGCompressibility()).differentiable is False
    assert "Score:" in inspect.getdoc(cls)
    assert modified(image).shape == (3,)
    alone = torch.cat([modified(image[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(modified(image), alone)


@every
def test_the_gradient_goes_through(cls):
    modified = build(cls)(Darkness())
    image = picture(2, 9, 8, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(modified, image, eps=1e-6, atol=1e-6)
    assert torch.autograd.grad(modified(image).sum(), image)[0].abs().sum() > 0


@every
@pytest.mark.parametrize("size", [(24, 32), (5, 64), (8, 8), (1, 1)])
def test_any_size_will_do(cls, size):
    assert torch.isfinite(build(cls)(Darkness())(picture(2, *size))).all()


@every
def test_modifiers_nest_and_their_names_can_be_read(cls):
    node = next(n for n in rewards.NODES if n.__name__ == f"DNO{cls.__name__}Reward")
    values = {}
    if cls is Mask:
        values = {"area": mask(), "feather": 0.02, "invert": False}
    elif cls is Normalise:
        values = {"pictures": picture(4).movedim(1, -1)}
    terms = {"contrast": Weighted(2.0, Contrast()), "darkness": Weighted(-1.0, Darkness())}
    (once,) = node.execute(reward=terms, **values).result
    (twice,) = rewards_node("DNOClampReward").execute(reward=once, lowest=-9.0, highest=9.0).result
    label = build(cls).label
    assert list(twice) == [label.format(name) + ", clamped" for name in terms]
    assert [term.weight for term in twice.values()] == [2.0, -1.0]
    total, values = Objective(twice).reward(picture())
    assert total.shape == (2,) and len(values) == 2


def rewards_node(name):
    return next(node for node in rewards.NODES if node.__name__ == name)


def test_clamp_has_no_gradient_beyond_its_limits():
    image = (
        torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1).expand(3, 3, 4, 4).clone().requires_grad_()
    )
    reward = Clamp(0.3, 0.7)(Darkness())(image)
    assert reward.tolist() == pytest.approx([0.7, 0.5, 0.3])
    slope = torch.autograd.grad(reward.sum(), image)[0].abs().amax((1, 2, 3))
    assert slope[0] == 0 and slope[1] > 0 and slope[2] == 0


def test_target_is_the_distance_from_a_score():
    image = torch.full((1, 3, 4, 4), 0.2)
    assert Target(0.5)(Darkness())(image).item() == pytest.approx(-0.3)
    assert Target(0.5).label.format("darkness") == "darkness to 0.5"


def test_negate_turns_around():
    image = picture()
    assert torch.equal(Negate()(Darkness())(image), -Darkness()(image))


def test_normalise_gives_its_pictures_mean_0_and_deviation_1():
    pictures = picture(6) * torch.linspace(0.3, 1, 6).view(6, 1, 1, 1)
    reward = Normalise(pictures)(JPEGCompressibility())(pictures)
    assert reward.mean().item() == pytest.approx(0, abs=1e-5)
    assert reward.std().item() == pytest.approx(1, abs=1e-5)


def test_normalise_explains_what_it_needs():
    with pytest.raises(ValueError, match="Normalise: pictures has one picture"):
        Normalise(picture(1))
    with pytest.raises(ValueError, match="Normalise: all pictures have the same score"):
        Normalise(picture(1).expand(3, -1, -1, -1))(Darkness())


def test_brightness_in_a_mask_is_the_mean_inside():
    image, area = picture(2, 24, 32), torch.zeros(1, 24, 32)
    area[:, 5:12, 8:20] = 1
    reward = Mask(area, feather=0.0)(Brightness())
    inside = image[:, :, 5:12, 8:20].mean((1, 2, 3))
    torch.testing.assert_close(reward(image), inside - 1)
    outside = Mask(area, feather=0.0, invert=True)(Brightness())
    rest = (image.sum((1, 2, 3)) - inside * 3 * 7 * 12) / (3 * (24 * 32 - 7 * 12))
    torch.testing.assert_close(outside(image), rest - 1)


@pytest.mark.parametrize("feather", [0.0, 0.05])
def test_outside_of_the_mask_nothing_counts(feather):
    image, area = picture(1, 40, 40), torch.zeros(1, 40, 40)
    area[:, 16:24, 16:24] = 1
    image.requires_grad_()
    Mask(area, feather=feather)(Contrast())(image).sum().backward()
    slope = image.grad.abs().amax((0, 1))
    assert slope[18:22, 18:22].min() > 0
    assert slope[:4].max() < 1e-3 * slope.max()
    assert (slope[14:16, 18:22].max() > 0) == (feather > 0)


def test_masks_are_joined_and_stretched_to_the_picture():
    left, middle = torch.zeros(2, 1, 10, 10)
    left[..., :2], middle[..., 2:5] = 1, 1
    image = torch.cat([torch.zeros(2, 3, 16, 20), torch.ones(2, 3, 16, 20)], dim=3)
    reward = Mask(torch.cat([left, middle]), feather=0.0)(Darkness())(image)
    assert reward.tolist() == pytest.approx([1, 1], abs=0.05)


def test_an_empty_mask_is_explained():
    with pytest.raises(ValueError, match="Mask: area is empty"):
        Mask(torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="Mask: area covers the whole picture"):
        Mask(torch.ones(1, 8, 8), invert=True)


def test_a_small_mask_survives_a_wide_feather():
    area = torch.zeros(1, 64, 64)
    area[:, 30, 30] = 1
    image = picture(1, 64, 64)
    assert torch.isfinite(Mask(area, feather=0.5)(Darkness())(image)).all()


def test_crop_sees_its_rectangle():
    image = torch.arange(8.0).expand(1, 3, 4, 8)
    assert (1 - Crop(left=0.25, width=0.25)(Darkness())(image)).item() == pytest.approx(2.5)
    seen = []
    Crop(width=0.5, size=6)(Probe(seen))(image)
    assert seen == [(1, 3, 6, 6)]


class Probe(Reward):
    """Records the shapes that it is given."""

    def __init__(self, seen):
        self.seen = seen

    def __call__(self, image):
        self.seen.append(tuple(image.shape))
        return image.mean((1, 2, 3))


@pytest.mark.parametrize("values", [{"width": 0.0}, {"height": 0.0}, {"left": 1.0}, {"top": 1.0}])
def test_an_empty_crop_is_explained(values):
    with pytest.raises(ValueError, match="Crop: the rectangle is empty"):
        Crop(**values)


def terms(*weights):
    return {str(index): Weighted(weight, Darkness()) for index, weight in enumerate(weights)}


def test_minimum_lies_between_the_lowest_and_the_mean():
    image = torch.full((1, 3, 4, 4), 0.5)
    assert Minimum(terms(1, 1, 1))(image).item() == pytest.approx(0.5)
    assert Minimum(terms(1, 2), softness=0.0)(image).item() == pytest.approx(0.5)
    assert Minimum(terms(1, 2), softness=0.001)(image).item() == pytest.approx(0.5, abs=1e-3)
    assert Minimum(terms(1, 2), softness=100.0)(image).item() == pytest.approx(0.75, abs=1e-3)
    assert 0.5 < Minimum(terms(1, 2))(image).item() < 0.75


def test_minimum_lifts_the_worst():
    image = picture(1).requires_grad_()
    worst, best = Weighted(1.0, Brightness()), Weighted(1.0, Darkness())  # -0.5 and 0.5
    Minimum({"a": worst, "b": best}, softness=0.05)(image).sum().backward()
    assert (image.grad > 0).all()


def test_minimum_of_nothing_is_explained():
    with pytest.raises(ValueError, match="Minimum: there are no rewards"):
        Minimum({})


def test_the_minimum_node_makes_one_term_of_many():
    node = next(node for node in combine.NODES if node.__name__ == "DNOMinimumReward")
    (rewards,) = node.execute(
        softness=0.2,
        reward_1={"contrast": Weighted(2.0, Contrast())},
        weight_1=1.0,
        reward_2={"JPEG compressibility": Weighted(1.0, JPEGCompressibility())},
        weight_2=0.01,
    ).result
    ((name, term),) = rewards.items()
    assert name == "lowest of contrast, JPEG compressibility"
    assert term.function.differentiable is False
    assert [inner.weight for inner in term.function.terms.values()] == [2.0, 0.01]

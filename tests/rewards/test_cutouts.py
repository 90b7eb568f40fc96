"""Cutouts: a reward's mean over parts that are drawn once."""

import pytest
import torch

from ComfyUI_DNO.dno.objective import Reward
from ComfyUI_DNO.rewards import Brightness, Contrast, Cutouts, Darkness
from ComfyUI_DNO.rewards.cutouts import CutOut

from ..support.examples import picture


class OfLatent(Reward):
    space = "latent"

    def __call__(self, latent):
        return latent.flatten(1).mean(1)


class Seen(Reward):
    """Keeps what it is shown."""

    def __init__(self):
        self.parts = []

    def __call__(self, image):
        self.parts.append(image)
        return image.flatten(1).mean(1)


def seen(image, **fields):
    reward = Seen()
    Cutouts(**fields)(reward)(image)
    return reward.parts


def test_the_score_is_the_mean_over_the_parts_and_the_whole():
    image = picture(3)
    parts = seen(image, count=5)
    assert len(parts) == 6 and parts[0] is image
    wanted = torch.stack([Contrast()(part) for part in parts]).mean(dim=0)
    torch.testing.assert_close(Cutouts(count=5)(Contrast())(image), wanted)
    assert len(seen(image, count=5, whole=False)) == 5


def test_parts_are_drawn_once_from_the_seed_whatever_else_is_drawn():
    image = picture(2)
    first = seen(image, seed=3)
    torch.manual_seed(99)
    torch.rand(7)
    again, other = seen(image, seed=3), seen(image, seed=4)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert [part.shape for part in first] != [part.shape for part in other]
    state = torch.get_rng_state()
    seen(image)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("smallest", [0.3, 0.6, 1.0])
def test_parts_have_the_picture_s_shape_and_a_share_of_it(smallest):
    image = picture(1, 60, 90)
    for part in seen(image, count=16, smallest=smallest, whole=False):
        height, width = part.shape[2:]
        assert smallest * 60 - 1 < height <= 60
        assert abs(height / 60 - width / 90) < 0.02


def test_parts_are_pieces_of_the_picture_every_other_one_mirrored():
    image = torch.arange(60 * 90.0).view(1, 1, 60, 90).expand(1, 3, 60, 90)
    parts = seen(image, count=4, whole=False)
    steps = [float(part[0, 0, 0, 1] - part[0, 0, 0, 0]) for part in parts]
    assert steps == [-1, 1, -1, 1]
    assert all(float(part[0, 0, 1, 0] - part[0, 0, 0, 0]) == 90 for part in parts)
    assert len({float(part.min()) for part in parts}) == 4
    straight = seen(image, count=4, whole=False, flips=False)
    assert all(torch.equal(a if i % 2 else a.flip(3), b) for i, (a, b) in
               enumerate(zip(parts, straight, strict=True)))  # fmt: skip


def test_the_same_parts_are_seen_at_another_size():
    small, large = (seen(picture(1, side, side), whole=False) for side in (50, 500))
    for a, b in zip(small, large, strict=True):
        assert abs(a.shape[2] / 50 - b.shape[2] / 500) < 0.02


def test_the_gradient_is_exact():
    image = picture(2, 9, 8, dtype=torch.float64).requires_grad_()
    assert torch.autograd.gradcheck(Cutouts(count=3)(Contrast()), image, eps=1e-6, atol=1e-6)


def test_every_corner_counts_and_the_middle_more():
    image = picture(1, 40, 40).requires_grad_()
    (slope,) = torch.autograd.grad(Cutouts(count=64, smallest=0.4)(Brightness(1.0))(image), image)
    weight = slope[0].sum(dim=0)
    assert (weight > 0).all()
    assert weight[15:25, 15:25].mean() > 1.5 * weight[:5, :5].mean()


def test_a_reward_of_the_latent_is_refused():
    with pytest.raises(ValueError, match="it has no cutouts"):
        Cutouts()(OfLatent())
    assert isinstance(Cutouts()(Darkness()), CutOut)

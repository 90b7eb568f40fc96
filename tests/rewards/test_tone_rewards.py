"""What the rewards of tone and colour say about pictures whose answer is known."""

import pytest
import torch

from ComfyUI_DNO.rewards import Brightness, Colour, Contrast, Darkness
from ComfyUI_DNO.rewards._colour import oklab, parse_colour

from ..support.examples import picture


def flat(*rgb, size=16):
    """A picture of one colour."""
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, size, size)


def halves(left, right):
    """Two colours side by side."""
    return torch.cat([flat(*left), flat(*right)], dim=3)


BLACK, GREY, WHITE = (0.0, 0.0, 0.0), (0.5, 0.5, 0.5), (1.0, 1.0, 1.0)


def test_oklab_of_known_colours():
    lab = torch.cat([oklab(flat(*rgb, size=1)) for rgb in (BLACK, WHITE, GREY, (1.0, 0.0, 0.0))])[
        ..., 0, 0
    ]
    torch.testing.assert_close(lab[0], torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(lab[1], torch.tensor([1.0, 0.0, 0.0]), atol=1e-3, rtol=0)
    assert lab[2, 1:].abs().max() < 1e-3
    # Ottosson's table: red is L .628, a .225, b .126; ours is rescaled by the softening at black
    torch.testing.assert_close(lab[3, 1:], torch.tensor([0.225, 0.126]), atol=0.025, rtol=0)


def test_a_colour_is_read_as_it_is_written():
    assert (parse_colour("#ff8000") * 255).flatten().tolist() == pytest.approx([255, 128, 0])


@pytest.mark.parametrize("text", ["ff8800", "#ff88", "#ff880g", "orange", ""])
def test_a_colour_that_cannot_be_read_is_explained(text):
    with pytest.raises(ValueError, match="Colour: colour is .*; write it as #rrggbb"):
        Colour(text)


def test_brightness_is_the_distance_from_the_target():
    image = torch.cat([flat(0.2, 0.2, 0.2), flat(0.6, 0.6, 0.6)])
    assert Brightness(0.5)(image).tolist() == pytest.approx([-0.3, -0.1])
    assert Brightness()(flat(*WHITE)).item() == 0


def test_darkness_counts_down_from_white():
    assert Darkness()(torch.cat([flat(*BLACK), flat(0.3, 0.3, 0.3)])).tolist() == pytest.approx(
        [1, 0.7]
    )


def test_contrast_of_black_beside_white_is_one():
    assert Contrast()(halves(BLACK, WHITE)).item() == pytest.approx(0, abs=3e-3)
    assert Contrast(0.0)(halves(BLACK, WHITE)).item() == pytest.approx(-1, abs=3e-3)
    assert Contrast(0.0)(flat(*GREY)).item() == pytest.approx(0, abs=1e-6)


def test_colour_is_the_share_of_the_picture():
    blue, red = (0.2, 0.4, 0.8), (0.9, 0.1, 0.1)
    reward = Colour("#3366cc", tolerance=0.05)
    assert reward(flat(*blue)).item() == pytest.approx(1, abs=1e-5)
    assert reward(halves(blue, red)).item() == pytest.approx(0.5, abs=0.03)
    assert reward(flat(*red)).item() < 0.05


def test_colour_without_lightness_takes_any_shade():
    shade = flat(0.15, 0.3, 0.6)
    assert Colour("#3366cc", lightness=0.0)(shade) > Colour("#3366cc", lightness=1.0)(shade) + 0.05


def test_colour_reaches_the_colour_from_a_picture_without_it():
    image = (0.3 * picture(1) + torch.tensor([0.6, 0.0, 0.0]).view(1, 3, 1, 1)).clamp(0, 1)
    reward, climbed = Colour("#3366cc"), image.clone().requires_grad_()
    optimizer = torch.optim.Adam([climbed], lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        (-reward(climbed).sum()).backward()
        optimizer.step()
        climbed.data.clamp_(0, 1)
    assert reward(image).item() < 0.6
    assert reward(climbed).item() > 0.95

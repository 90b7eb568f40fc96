"""What the rewards of colour amounts and of structure say about pictures whose answer is known."""

import pytest
import torch

from ComfyUI_DNO.rewards import (
    BlackAndWhite,
    Composition,
    Edges,
    Layout,
    Palette,
    Saturation,
    Sharpness,
    Smoothness,
    Symmetry,
    Tiling,
    Warmth,
)
from ComfyUI_DNO.rewards._picture import correlation, grid, root, slopes

from ..support.examples import picture


def flat(*rgb, size=16):
    """A picture of one colour."""
    return torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, size, size)


def spot(x, y, size=48, radius=5):
    """A red disc on grey, its centre at (x, y) as shares of the side."""
    position = (torch.arange(size) + 0.5) / size
    inside = torch.hypot(position - x, position[:, None] - y) < radius / size
    return torch.where(inside, flat(0.9, 0.1, 0.1, size=size), flat(0.5, 0.5, 0.5, size=size))


def blurred(image, width=5):
    return torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(image, [width // 2] * 4, mode="replicate"), width, 1
    )


@pytest.mark.parametrize("size, cells", [((6, 8), (3, 4)), ((7, 5), (3, 4)), ((3, 2), (5, 5))])
def test_grid_keeps_the_mean_and_averages_exactly(size, cells):
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    averages = grid(image, *cells)
    assert averages.shape == (2, 3, *cells)
    torch.testing.assert_close(averages.mean((2, 3)), image.mean((2, 3)))
    if size == (6, 8):
        torch.testing.assert_close(averages, torch.nn.functional.avg_pool2d(image, 2))


def test_root_is_a_square_root_with_a_finite_slope():
    x = torch.tensor([0.0, 1.0], requires_grad=True)
    root(x).sum().backward()
    assert x.grad.tolist() == pytest.approx([500, 0.5], rel=1e-3)
    torch.testing.assert_close(
        root(torch.tensor([0.0, 4.0])), torch.tensor([0.0, 2.0]), atol=2e-3, rtol=0
    )


def test_correlation_is_pearsons():
    one, other = torch.randn(2, 50, dtype=torch.float64), torch.randn(2, 50, dtype=torch.float64)
    expected = [torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(one, other, strict=True)]
    torch.testing.assert_close(
        correlation(one, other, (1,)), torch.stack(expected), atol=1e-5, rtol=0
    )


def test_slopes_are_zero_at_the_border():
    right, down = slopes(torch.arange(6.0).view(1, 2, 3))
    assert right.tolist() == [[[1, 1, 0], [1, 1, 0]]]
    assert down.tolist() == [[[3, 3, 3], [0, 0, 0]]]


def test_saturation_of_grey_and_red():
    assert Saturation(0.0)(flat(0.5, 0.5, 0.5)).item() == pytest.approx(0, abs=5e-3)
    assert Saturation(0.0)(flat(1.0, 0.0, 0.0)).item() == pytest.approx(-1.1, abs=0.1)
    assert BlackAndWhite()(flat(0.3, 0.3, 0.3)).item() == pytest.approx(1, abs=5e-3)


def test_warmth_tells_candle_from_moon():
    reward = Warmth(0.0)
    assert reward(flat(0.5, 0.5, 0.5)).item() == pytest.approx(0, abs=5e-3)
    assert Warmth(1.0)(flat(1.0, 0.5, 0.0)) > Warmth(1.0)(flat(0.5, 0.5, 0.5)) + 0.5
    assert Warmth(-1.0)(flat(0.2, 0.3, 1.0)) > Warmth(-1.0)(flat(0.5, 0.5, 0.5)) + 0.5


def test_palette_of_the_same_colours_elsewhere_and_at_another_size_is_the_same():
    image = picture(1, 32, 32)
    reward = Palette(image)
    assert reward(image).item() == pytest.approx(0, abs=1e-3)
    assert reward(image.flip(3)).item() == pytest.approx(0, abs=1e-3)
    larger = torch.nn.functional.interpolate(image, scale_factor=2)
    assert reward(larger).item() == pytest.approx(0, abs=3e-3)
    assert reward(0.4 * image).item() < -0.1


def test_palette_is_the_distance_between_flat_colours():
    """Along evenly spread directions the mean square of a projection is a third of the length's."""
    reward = Palette(flat(0.0, 0.0, 0.0))
    assert reward(flat(1.0, 1.0, 1.0)).item() == pytest.approx(-1, abs=0.02)
    assert Palette(flat(0.0, 0.0, 0.0), lightness=0.0)(flat(1.0, 1.0, 1.0)).item() == pytest.approx(
        0, abs=0.01
    )


def test_a_palette_can_come_from_several_pictures():
    both = Palette(torch.cat([flat(1.0, 0.0, 0.0), flat(0.0, 0.0, 1.0)]))
    halves = torch.cat([flat(1.0, 0.0, 0.0), flat(0.0, 0.0, 1.0)], dim=3)
    assert both(halves).item() == pytest.approx(0, abs=5e-3)
    assert both(flat(1.0, 0.0, 0.0)).item() < -0.1


def test_palette_moves_colours_not_places():
    image, reward = picture(1, 24, 24), Palette(picture(1, 24, 24, seed=5).clamp(0, 0.6))
    moved = image.clone().requires_grad_()
    optimizer = torch.optim.Adam([moved], lr=0.01)
    for _ in range(100):
        optimizer.zero_grad()
        (-reward(moved).sum()).backward()
        optimizer.step()
    assert reward(moved).item() > reward(image).item() / 5


def test_blur_is_less_sharp_and_more_smooth():
    image = (picture(1, 48, 48) > 0.5).float()
    assert Sharpness()(image) > Sharpness()(blurred(image)) + 0.1
    assert Smoothness()(image) < Smoothness()(blurred(image)) - 0.1
    assert Smoothness()(flat(0.3, 0.3, 0.3)).item() == 0
    assert Sharpness()(flat(0.3, 0.3, 0.3)).item() == 0


def test_one_crisp_edge_is_sharper_than_grain():
    edge = torch.cat([flat(0.1, 0.1, 0.1), flat(0.9, 0.9, 0.9)], dim=3)
    grain = 0.5 + 0.1 * torch.randn(1, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    assert Sharpness()(edge).item() == pytest.approx(0.8, abs=0.02)
    assert Sharpness()(grain) < 0.4


@pytest.mark.parametrize(
    "axis, turned", [("left-right", (3,)), ("top-bottom", (2,)), ("half turn", (2, 3))]
)
def test_symmetry_of_a_picture_and_its_mirror_image_is_one(axis, turned):
    image = picture(1)
    symmetric = (image + image.flip(turned)) / 2
    assert Symmetry(axis)(symmetric).item() == pytest.approx(1, abs=1e-3)
    assert Symmetry(axis)(image) < 0.9
    assert Symmetry(axis)(flat(1.0, 0.2, 0.2)).item() == pytest.approx(0, abs=1e-6)


def test_composition_follows_the_spot():
    positions = {
        "left": (0.15, 0.5),
        "right": (0.85, 0.5),
        "top": (0.5, 0.15),
        "bottom": (0.5, 0.85),
    }
    positions |= {"centre": (0.5, 0.5), "thirds": (1 / 3, 2 / 3)}
    for layout in positions:
        rewards = {at: Composition(layout)(spot(*positions[at])).item() for at in positions}
        assert max(rewards, key=rewards.get) == layout
        assert min(rewards.values()) >= 0 and rewards[layout] > 0.7


def test_composition_with_a_mask_counts_what_lies_inside():
    area = torch.zeros(1, 30, 60)
    area[:, :, :30] = 1
    assert Composition(area=area)(spot(0.25, 0.5)).item() > 0.9
    assert Composition(area=area)(spot(0.75, 0.5)).item() < 0.15
    with pytest.raises(ValueError, match="Composition: area is empty; paint"):
        Composition(area=torch.zeros(1, 8, 8))


def test_edges_of_the_same_drawing_correlate():
    reference = spot(0.4, 0.5)
    assert Edges(reference)(1 - reference).item() == pytest.approx(1, abs=0.01)
    assert Edges(reference)(spot(0.8, 0.2)).item() < 0.3
    recoloured = torch.where(reference == reference[:, :, :1, :1], 0.2, 0.7)
    assert Edges(reference)(recoloured).item() > 0.9


@pytest.mark.parametrize("ink, paper", [(0.0, 1.0), (1.0, 0.0)])
def test_a_line_drawing_is_its_lines(ink, paper):
    disc = spot(0.5, 0.5, radius=14)[:, :1] < 0.52
    outline = (blurred(disc.float(), 3) - 0.5).abs() < 0.45
    drawing = torch.where(outline, ink, paper).expand(1, 3, 48, 48)
    reward = Edges(drawing, kind="line drawing", detail=16)
    assert reward(spot(0.5, 0.5, radius=14)).item() > 0.8
    assert reward(spot(0.2, 0.2, radius=4)).item() < 0.4


def test_a_reference_without_edges_is_explained():
    with pytest.raises(ValueError, match="Edges: reference has no edges; give it|give a picture"):
        Edges(flat(0.5, 0.5, 0.5))


def test_layout_ignores_detail_and_size():
    reference = picture(1, 48, 48)
    assert Layout(reference, 4)(reference).item() == pytest.approx(0, abs=1e-5)
    smooth = torch.nn.functional.interpolate(reference, (30, 54), mode="area")
    assert Layout(reference, 4)(smooth).item() > -0.03
    assert Layout(reference, 4)(reference.flip(3)).item() < -0.03
    assert Layout(reference, 1)(reference.flip(3)).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("cls", [Layout, Edges])
def test_the_nearest_of_several_references_counts(cls):
    references = torch.cat([spot(0.2, 0.2), spot(0.8, 0.7)])
    both, alone = cls(references), [cls(references[i : i + 1]) for i in range(2)]
    torch.testing.assert_close(
        both(references), torch.cat([alone[i](references[i : i + 1]) for i in range(2)])
    )


def test_layout_of_black_and_white_is_one_apart():
    assert Layout(flat(0.0, 0.0, 0.0))(flat(1.0, 1.0, 1.0)).item() == pytest.approx(-1, abs=0.01)


def test_a_wave_tiles_and_a_ramp_does_not():
    phase = torch.arange(32) * (2 * torch.pi / 32)
    wave = (0.5 + 0.4 * phase.sin()).expand(1, 3, 32, 32)
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    assert Tiling()(wave).item() > -0.02
    assert Tiling()(ramp).item() < -0.5
    assert Tiling("top-bottom")(ramp).item() == pytest.approx(0, abs=1e-5)
    assert Tiling("left-right")(ramp).item() == pytest.approx(-1 - 1 / 31, abs=2e-3)

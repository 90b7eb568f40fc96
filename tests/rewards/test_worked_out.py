"""Rewards of structure, worked out a second time in numpy from their docstrings' words."""

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from ComfyUI_DNO.rewards import (
    Composition,
    Edges,
    Layout,
    Sharpness,
    Smoothness,
    Symmetry,
    Tiling,
)
from ComfyUI_DNO.rewards.composition import _CELLS

SIDE = 2 * _CELLS
SOFT = 1e-3  # of the roots, which have a finite slope at nothing


def picture(seed: int, side: int = SIDE) -> np.ndarray:
    """(H,W,3): blobs and grain, darker on one side."""
    drawn = np.random.default_rng(seed)
    blobs = np.kron(drawn.random((8, 8, 3)), np.ones((side // 8, side // 8, 1)))
    shade = np.linspace(0.4, 1, side)[None, :, None]
    return np.clip((0.8 * blobs + 0.2 * drawn.random((side, side, 3))) * shade, 0, 1)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image).movedim(-1, 0)[None]


def score(reward, image: np.ndarray) -> float:
    return float(reward(tensor(image)))


def gradient(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Steps to the right and below, none at the last column and row."""
    right = np.diff(values, axis=1, append=values[:, -1:])
    return right, np.diff(values, axis=0, append=values[-1:])


def luma(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.2126, 0.7152, 0.0722])


def cells(values: np.ndarray, count: int) -> np.ndarray:
    each = len(values) // count
    return values.reshape(count, each, count, each, -1).mean(axis=(1, 3)).squeeze()


def oklab(image: np.ndarray) -> np.ndarray:
    """Ottosson's, from sRGB, with this pack's foot under the cube root."""
    linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
    lms = linear @ np.array(
        [
            [0.4122214708, 0.2119034982, 0.0883024619],
            [0.5363325363, 0.6806995451, 0.2817188376],
            [0.0514459929, 0.1073969566, 0.6299787005],
        ]
    )
    foot = np.cbrt(0.001)
    return (
        (np.cbrt(lms + 0.001) - foot)
        / (np.cbrt(1.001) - foot)
        @ np.array(
            [
                [0.2104542553, 1.9779984951, 0.0259040371],
                [0.7936177850, -2.4285922050, 0.7827717662],
                [-0.0040720468, 0.4505937099, -0.8086757660],
            ]
        )
    )


def test_smoothness_is_total_variation():
    image = picture(1)
    expected = -10 * np.mean([np.hypot(*gradient(image[..., c])).mean() for c in range(3)])
    assert score(Smoothness(), image) == pytest.approx(expected, abs=10 * SOFT)


def test_sharpness_is_the_edges_steepness():
    image = picture(2)
    length = np.hypot(*gradient(luma(image)))
    expected = np.sqrt((length**4).sum() / (length**2).sum())
    assert score(Sharpness(), image) == pytest.approx(expected, abs=2 * SOFT)


@pytest.mark.parametrize("axis, turned", [("left-right", (1,)), ("half turn", (0, 1))])
def test_symmetry_is_the_correlation_with_the_mirror_image(axis, turned):
    image = picture(3)
    shades = image - image.mean(axis=(0, 1))
    expected = pearsonr(shades.ravel(), np.flip(shades, turned).ravel()).statistic
    assert score(Symmetry(axis), image) == pytest.approx(expected, abs=1e-4)


def test_edges_is_the_correlation_of_edge_strength():
    one, other = picture(4), picture(5)
    other[:, :32] = one[:, :32]

    def strength(image):
        fine = luma(cells(image, 32))
        return cells(np.hypot(*gradient(fine)), 16)

    expected = pearsonr(strength(one).ravel(), strength(other).ravel()).statistic
    reward = Edges(torch.from_numpy(one).movedim(-1, 0)[None], detail=16)
    assert 0.2 < expected < 0.9
    assert score(reward, other) == pytest.approx(expected, abs=0.01)


def test_layout_is_the_distance_of_blurred_colours():
    one, other = picture(6), picture(7)
    apart = oklab(cells(one, 8)) - oklab(cells(other, 8))
    expected = -np.sqrt((apart**2).sum(axis=-1).mean())
    reward = Layout(torch.from_numpy(one).movedim(-1, 0)[None], detail=8)
    assert score(reward, other) == pytest.approx(expected, abs=2e-3)


def test_composition_is_the_share_of_what_stands_out():
    image, area = picture(8), np.zeros((SIDE, SIDE))
    area[: SIDE // 2, SIDE // 4 :] = 1
    colour = oklab(cells(image, _CELLS))
    salience = ((colour - colour.mean(axis=(0, 1))) ** 2).sum(axis=-1)
    expected = (salience * cells(area[..., None], _CELLS)).sum() / salience.sum()
    reward = Composition(area=torch.from_numpy(area)[None])
    assert score(reward, image) == pytest.approx(expected, abs=2e-3)


def test_tiling_is_the_step_across_the_seam_beyond_the_slopes():
    image = picture(9)
    squares = []
    for lines in (image, image.swapaxes(0, 1)):
        slope = (lines[1] - lines[0] + lines[-1] - lines[-2]) / 2
        squares.append(((lines[0] - lines[-1] - slope) ** 2).mean())
    assert score(Tiling(), image) == pytest.approx(-np.sqrt(np.mean(squares)), abs=SOFT)

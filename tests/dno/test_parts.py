"""A part of the noise that moves: the rest stays, whatever the method."""

from __future__ import annotations

import pytest
import torch

from ComfyUI_DNO.dno.method import Ascent, Then
from ComfyUI_DNO.dno.optimizers import SGD, Adam, Rotation
from ComfyUI_DNO.dno.parts import Part, limited
from ComfyUI_DNO.dno.rings import rings
from ComfyUI_DNO.dno.steer import FAST, Steer

from ..support.toy import Ramp, Toy, normal

MASK = torch.zeros(1, 16, 16)
MASK[:, 4:12, 8:] = 1  # of the size of the picture; the noise is half as large
METHODS = [
    Steer(FAST[:1] + FAST[3:]),
    Ascent(Adam(), 0.05, 3),
    Ascent(SGD(), 1.0, 3),
    Ascent(Rotation(), iterations=3, clip=0.0),
    Then(Steer(FAST[:1] + FAST[3:]), Ascent(Rotation(), iterations=2, clip=0.0)),
]


@pytest.mark.parametrize("eta", [1.0, 0.0])
@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_nothing_moves_outside_the_mask(method, eta):
    toy = Toy(eta)
    iterates = limited(method, Part(MASK)).iterates(toy.task(Ramp()))
    snapshots = [iterate.noise.snapshot() for iterate in iterates]
    inside = MASK[0, ::2, ::2].bool()
    for noise in snapshots[1:]:
        for moved, first in zip(noise.tensors(), snapshots[0].tensors(), strict=True):
            torch.testing.assert_close(moved[..., ~inside], first[..., ~inside])
    last = [t[..., inside] for t in snapshots[-1].tensors()]
    first = [t[..., inside] for t in snapshots[0].tensors()]
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(last, first, strict=True))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: type(m).__name__)
def test_low_frequencies_alone_move(method):
    toy = Toy()
    iterates = limited(method, Part(frequencies=0.4)).iterates(toy.task(Ramp()))
    snapshots = [iterate.noise.snapshot() for iterate in iterates]
    average, _ = rings(8, 8)
    kept = max(1, round(0.4 * average.shape[1]))
    high = (average[:, kept:] > 0).any(1)
    for moved, first in zip(snapshots[-1].tensors(), snapshots[0].tensors(), strict=True):
        change = torch.fft.rfft2((moved - first).detach()).flatten(2)
        assert change[..., high].abs().max() < 1e-3


def test_all_of_it_is_no_limit():
    for method in METHODS:
        assert limited(method, Part()) is method


def test_a_part_of_none_is_told():
    with pytest.raises(ValueError, match="above 0"):
        Part(frequencies=0.0)


def test_a_mask_of_grey_moves_in_part():
    start, moved = normal(1, 4, 8, 8), normal(1, 4, 8, 8, seed=1)
    (half,) = Part(torch.full((1, 8, 8), 0.5)).at([start])([moved])
    torch.testing.assert_close(half, (start + moved) / 2)

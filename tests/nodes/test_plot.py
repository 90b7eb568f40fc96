"""The plot of a history: what is on it, read back from its pixels, and what it must survive."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from ComfyUI_DNO.dno.history import History
from ComfyUI_DNO.nodes.drawing import canvas, chart, plot
from ComfyUI_DNO.nodes.drawing.canvas import ARROW, Canvas, Scale, number, thin

from ..support.histories import climb, history_of

WIDTH, HEIGHT = 768, 512


def where(picture, colour, tolerance=12):
    """(rows, columns) of the pixels of a colour."""
    pixels = np.asarray(picture).astype(int)
    return np.nonzero(np.abs(pixels - ImageColor.getrgb(colour)).max(axis=2) <= tolerance)


def lines_at(picture, colour, column):
    """How many separate lines of a colour cross a column."""
    pixels = np.asarray(picture).astype(int)[:, column]
    hit = np.abs(pixels - ImageColor.getrgb(colour)).max(axis=1) <= 12
    return int(hit[0]) + int((np.diff(hit.astype(int)) == 1).sum())


def test_the_plot_is_of_the_asked_size_and_mostly_white():
    picture = plot.plot(climb(), 640, 384)
    assert picture.size == (640, 384) and picture.mode == "RGB"
    assert 0.75 < (np.asarray(picture) == 255).all(axis=2).mean() < 0.97


def test_the_reward_rises_over_the_whole_width():
    rows, columns = where(plot.plot(climb(), WIDTH, HEIGHT), plot.REWARD)
    in_panel = rows > 0.1 * HEIGHT
    rows, columns = rows[in_panel], columns[in_panel]
    assert columns.min() < 0.15 * WIDTH and columns.max() > 0.85 * WIDTH
    assert rows[columns < 0.2 * WIDTH].mean() - rows[columns > 0.8 * WIDTH].mean() > 0.15 * HEIGHT


def test_the_dot_lies_on_the_line_at_the_best_iteration(monkeypatch):
    dots = []
    monkeypatch.setattr(Canvas, "dot", lambda self, point, radius, colour: dots.append(point))
    history = climb(20)
    panel, steps = plot.reward_panel(history), list(range(21))
    picture = plot.plot(history, WIDTH, HEIGHT)
    frame = chart.Frame(Canvas(WIDTH, HEIGHT), steps, [panel, plot.health_panel(history)])
    ((x, y),) = dots
    assert history.best.step.tolist() == [18]
    assert x == pytest.approx(frame.x(18))
    assert np.asarray(picture)[round(y), round(x)].tolist() == list(ImageColor.getrgb(plot.REWARD))


def test_each_image_of_a_batch_has_its_own_line_and_the_noise_one_mean():
    picture = plot.plot(climb(20, batch=5), WIDTH, HEIGHT)
    assert lines_at(picture, plot.REWARD, WIDTH // 2) == 5
    assert lines_at(picture, plot.HEALTH[0], WIDTH // 2) == 1
    assert lines_at(picture, plot.HEALTH[1], WIDTH * 2 // 3) == 1


def test_a_huge_batch_is_cut_to_what_can_be_seen():
    panel = plot.reward_panel(climb(3, batch=40))
    assert len([curve for curve in panel.curves if curve.colour == plot.REWARD]) == plot.IMAGES
    assert len(panel.dots) == plot.IMAGES


def test_the_legend_names_every_term_with_its_first_and_its_best_value():
    history = climb(30, terms=("light", "drag", "weight"))
    legends = [curve.legend for curve in plot.reward_panel(history).curves if curve.legend]
    best = -0.5 + 0.3 * 28 / 30
    assert legends[0] == f"reward (light) -0.5 {ARROW} {best:.2f}"
    assert legends[1] == f"drag -0.15 {ARROW} {-0.2 - 0.1 * best:.3f}"
    assert legends[2] == f"weight {1000 * math.cos(0.5):.0f} {ARROW} {1000 * math.cos(best):.0f}"
    health = [curve.legend for curve in plot.health_panel(history).curves]
    assert health[0] == f"P(z) 0.8 {ARROW} {0.8 * math.exp(-28 / 30):.3f}"


def test_a_term_of_another_magnitude_is_dashed_on_its_own_scale():
    panel = plot.reward_panel(climb(terms=("light", "drag", "weight")))
    reward, drag, weight = panel.curves
    assert drag.scale is panel.left and not drag.dashed
    assert weight.scale.low > 800 and weight.dashed
    assert panel.left.high < 0.1  # the reward keeps its room
    assert reward.thickness > drag.thickness


def test_a_term_that_is_not_the_reward_is_drawn_beside_it():
    history = climb(5, terms=("light",))
    doubled = [dataclasses.replace(r, reward=2 * r.reward) for r in history.records]
    history.records = doubled
    assert [c.legend.split()[0] for c in plot.reward_panel(history).curves] == ["reward", "light"]


def test_probability_has_a_fixed_axis_and_the_others_one_of_their_own():
    panel = plot.health_panel(climb())
    probability, deviation = panel.curves
    assert probability.scale is panel.left and (panel.left.low, panel.left.high) == (-0.05, 1.05)
    assert deviation.scale is panel.right and panel.right.high == pytest.approx(10.5)
    assert plot.health_panel(climb(indicators=False)) is None


@pytest.mark.parametrize("size", [(256, 256), (256, 1024), (2048, 256), (768, 512)])
@pytest.mark.parametrize(
    "history",
    [climb(0), climb(1), climb(2, batch=3), climb(4, indicators=False), history_of([0.0], [0.0])],
    ids=["no iteration", "one", "two", "no indicators", "constant zero"],
)
def test_short_and_constant_runs_are_drawn(history, size):
    picture = plot.plot(history, *size)
    assert picture.size == size
    assert len(where(picture, canvas.INK)[0]) > 20


@pytest.mark.parametrize("value", [1e-12, 1e-3, 0.5, 1234.5678, -1e9])
def test_constants_of_any_size_are_drawn_with_a_tick(value):
    history = history_of([value], [value], [value])
    scale = plot.reward_panel(history).left
    assert scale.low < value < scale.high and scale.ticks(4)
    plot.plot(history, 256, 256)


def test_numbers_that_are_not_finite_leave_a_gap():
    history = climb(10)
    bad = history.records[5]
    nan = torch.tensor([math.nan])
    health = {"P(z)": nan, "spectral deviation": torch.tensor([math.inf])}
    history.records[5] = dataclasses.replace(
        bad, reward=nan, terms={"light": -nan}, indicators=health
    )
    rows, _ = where(plot.plot(history, WIDTH, HEIGHT), plot.REWARD)
    assert len(rows) > 500


def test_ten_thousand_iterations_are_drawn_in_seconds_and_keep_their_peaks():
    values = [math.sin(i / 300) for i in range(10_001)]
    values[4321], values[6543] = 9.0, -9.0
    points = thin(range(10_001), values, 1000)
    assert len(points) < 1100
    assert points[0] == (0, values[0]) and points[-1] == (10_000, values[-1])
    assert (4321, 9.0) in points and (6543, -9.0) in points
    assert [x for x, _ in points] == sorted(x for x, _ in points)
    history = History()
    history.__dict__.update(climb(1).__dict__)
    first = history.records[0]
    history.records = [dataclasses.replace(first, step=step) for step in range(10_001)]
    plot.plot(history, WIDTH, HEIGHT)


def test_many_terms_leave_room_for_the_curves():
    history = climb(10)
    names = [f"a reward with a long name {i}" for i in range(20)]
    history.records = [
        dataclasses.replace(r, terms={name: r.reward - i for i, name in enumerate(names)})
        for r in history.records
    ]
    rows, _ = where(plot.plot(history, WIDTH, HEIGHT), plot.REWARD)
    assert rows.max() - rows[rows > 0.3 * HEIGHT].min() > 0.12 * HEIGHT
    assert rows.max() < 0.6 * HEIGHT  # above the noise's panel


def test_an_empty_history_is_refused():
    with pytest.raises(ValueError, match="^The history is empty"):
        plot.plot(History(), WIDTH, HEIGHT)


def test_colours_are_told_apart_without_colour():
    """The three lines that matter most differ in lightness or hue under every colour vision."""
    names = [plot.REWARD, *plot.HEALTH]
    colours = np.array([ImageColor.getrgb(name) for name in names], dtype=float) / 255
    red_blind = np.array([[0.170, 0.830, 0], [0.170, 0.830, 0], [0.005, -0.005, 1]])
    green_blind = np.array([[0.330, 0.670, 0], [0.330, 0.670, 0], [-0.028, 0.028, 1]])
    for vision in (np.eye(3), red_blind, green_blind):
        seen = (vision @ (colours**2.2).T).T.clip(0, 1) ** (1 / 2.2)
        for a, b in [(0, 1), (0, 2), (1, 2)]:
            assert np.abs(seen[a] - seen[b]).max() > 0.1


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, ["0", "0.5", "1"]),
        (-0.55, -0.2, ["-0.4", "-0.2"]),
        (1000.1, 1000.32, ["1000.1", "1000.2", "1000.3"]),
        (-3e9, 1e9, ["-2000000000", "0"]),
    ],
)
def test_ticks_are_round_and_written_out(low, high, expected):
    assert [text for _, text in Scale(low, high).ticks(3)] == expected


@pytest.mark.parametrize("last", [1, 2, 3, 7, 30, 100, 10_000])
def test_iterations_have_whole_ticks(last):
    ticks = [tick for tick, _ in Scale(0, last).ticks(5, whole=True)]
    assert ticks[0] == 0 and 2 <= len(ticks) <= 5
    assert all(tick == int(tick) for tick in ticks)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (-0.31256, "-0.313"),
        (0.5, "0.5"),
        (1.0, "1"),
        (12.345, "12.3"),
        (99999.4, "99999"),
        (100.0, "100"),
        (0.00012345, "0.000123"),
        (1.5e-7, "1.5e-07"),
        (2e9, "2e+09"),
    ],
)
def test_numbers_have_three_digits(value, text):
    assert number(value) == text


def test_dashes_leave_gaps_and_solid_lines_do_not():
    def covered(dash):
        drawn = Canvas(200, 20)
        drawn.line([(0, 10), (200, 10)], "#000000", 2, dash)
        return (np.asarray(drawn.finish())[10, :, 0] < 128).mean()

    assert covered(0) > 0.99
    assert 0.4 < covered(10) < 0.75


def test_the_plot_can_be_read_as_a_thumbnail():
    """At a third of the size the lines are still there, in their colour."""
    small = plot.plot(climb(), WIDTH, HEIGHT).resize((256, 171), Image.Resampling.BOX)
    for colour in (plot.REWARD, *plot.HEALTH):
        assert len(where(small, colour, tolerance=40)[0]) > 100

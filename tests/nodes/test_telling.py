"""What the node tells while it climbs and at its end: words, time left, the strip and its curve."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from ComfyUI_DNO.dno.fresh import fresh
from ComfyUI_DNO.dno.noise import Noise
from ComfyUI_DNO.nodes.drawing.strip import NARROWEST, SIDE, Standing, with_strip
from ComfyUI_DNO.nodes.host import progress
from ComfyUI_DNO.nodes.host.keeping import Keeping
from ComfyUI_DNO.nodes.host.progress import Progress
from ComfyUI_DNO.nodes.host.telling import health
from ComfyUI_DNO.nodes.options import Options
from ComfyUI_DNO.nodes.sampler import INDICATORS

from .test_sampler_node import parts, run  # noqa: F401


class Clock:
    """Seconds that pass with evaluations of the network and decodings alone."""

    def __init__(self):
        self.now = torch.zeros(())  # not a float, which would be put back as state of the model

    def after(self, seconds: float):
        def pass_on(value):
            self.now.add_(seconds)
            return value

        return pass_on


@pytest.fixture
def shown(monkeypatch, parts):  # noqa: F811
    """(seconds, text, standing) of everything shown by runs of a model on a clock of its own."""
    clock, found = Clock(), []
    monkeypatch.setattr(Progress, "seconds", property(lambda self: float(clock.now)))

    def show(self, image, text, standing=None):
        found.append((float(clock.now), text, standing))

    for name in ("picture", "finish"):
        monkeypatch.setattr(Progress, name, show)
    call, decoded = clock.after(4.0), clock.after(3.0)
    model, vae = parts[0].clone(), parts[1]
    model.set_model_unet_function_wrapper(
        lambda apply, given: call(apply(given["input"], given["timestep"], **given["c"]))
    )
    decode = vae.first_stage_model.decode
    monkeypatch.setattr(vae.first_stage_model, "decode", lambda z: decoded(decode(z)))

    def tell(**inputs):
        found.clear()
        run((model, *parts[1:]), **inputs)
        return list(found)

    return tell


def left(text: str) -> float | None:
    found = re.search(r"(?:(\d+) h )?(?:(\d+) min)?(?: ?(\d+) s)? left", text)
    if not found:
        return None
    hours, minutes, seconds = (int(group or 0) for group in found.groups())
    return 3600 * hours + 60 * minutes + seconds


@pytest.mark.parametrize(
    "inputs",
    [
        {"iterations": 8, "options": Options(memory="call")},
        {"iterations": 8, "options": Options(memory="recorded")},
        {"iterations": 8, "options": Options(memory="call", best_of=4)},
        {"iterations": -1, "effort": "fast"},
        {"iterations": -1, "effort": "thorough"},
        {"iterations": 30, "options": Options(memory="call", seconds=300.0)},
    ],
    ids=["computed again", "recorded", "best of four first", "fast", "thorough", "a time budget"],
)
def test_the_time_left_is_right_from_the_first_time_it_is_told(shown, inputs):
    told = shown(**inputs)
    end, text, _ = told[-1]
    promised = [(end - now, left(each)) for now, each, _ in told[:-1] if left(each) is not None]
    assert len(promised) >= 3
    for taken, said in promised[:-1]:
        assert abs(said - taken) <= 0.3 * taken + 1
    assert promised[-1][1] <= 60
    assert left(text) is None and re.search(r"done in \d+", text)


def test_a_run_that_is_stopped_promises_nothing_more(shown):
    *_, last = shown(
        iterations=20, options=Options(patience=1, use_target=True, target_reward=-9e5)
    )
    assert left(last[1]) is None and "left" not in " ".join(last[2].words)
    assert last[1].endswith("reward target -900000 reached")


def test_the_text_names_iteration_reward_noise_memory_and_regularizer(shown):
    told = shown(iterations=3, options=Options(memory="call"))
    lines = told[1][1].splitlines()
    assert re.fullmatch(r"iteration 1 of 3: reward \S+ → \S+, kept \S+", lines[0])
    assert re.fullmatch(
        r"noise healthy, P\(z\) \S+, spectral deviation \S+, [\d mins]+ left", lines[1]
    )
    assert lines[2] == "regularizer: spectrum 1, because none is connected"
    assert lines[3] == "memory: steps computed again"
    assert "memory: steps computed again" in told[-1][1].splitlines()
    assert told[-1][2].foot == lines[3:1:-1]


def test_the_first_picture_comes_before_the_first_backward_pass(parts, monkeypatch):  # noqa: F811
    events, picture, watch = [], Progress.picture, Progress.watch

    def show(self, *given):
        events.append("picture")
        picture(self, *given)

    def look(self, recomputed):
        events.append("back" if recomputed else "forth")
        watch(self, recomputed)

    monkeypatch.setattr(Progress, "picture", show)
    monkeypatch.setattr(Progress, "watch", look)
    run(parts, iterations=2, options=Options(memory="call"))
    assert events[:5] == ["forth"] * 3 + ["picture", "back"]


def test_drawing_takes_a_small_part_of_the_time(monkeypatch):
    """Iterations of one second whose picture takes another to draw; the words always come."""
    clock, drawn, said = [0.0], [], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(progress, "say", said.append)

    def draw(picture, standing):
        drawn.append(clock[0])
        clock[0] += 1
        return picture

    monkeypatch.setattr(progress, "with_strip", draw)
    standing, shown = Standing(["words"], [], [0], [0.0], 0), Progress(100, 1)
    for step in range(100):
        shown.picture(torch.zeros(1, 3, 8, 8), str(step), standing)
        clock[0] += 1
    shown.finish(torch.zeros(1, 3, 8, 8), "end", standing)
    assert drawn[0] == 0 and len(said) == 101
    between = [later - earlier for earlier, later in zip(drawn[:-2], drawn[1:-1], strict=True)]
    assert between and set(between) == {1 / progress.DRAWING + 1}
    assert drawn[-1] == clock[0] - 1


def test_the_button_is_there_with_the_first_picture(parts, monkeypatch):  # noqa: F811
    events = []
    picture, begin = Progress.picture, Keeping.begin
    monkeypatch.setattr(Progress, "picture", lambda *a: (events.append("picture"), picture(*a)))
    monkeypatch.setattr(Keeping, "begin", lambda self: (events.append("button"), begin(self)))
    run(parts, iterations=1)
    assert events == ["picture", "button", "picture", "button"]


@pytest.mark.parametrize("shape", [(4, 64, 64), (16, 16, 16), (4, 128, 128), (16, 32, 48)])
@pytest.mark.parametrize("draws", [0, 8])
def test_fresh_noise_is_healthy(shape, draws):
    like = Noise(torch.zeros(4, *shape), [torch.zeros(4, *shape)] * draws)
    for place in range(2):
        noise = fresh(like, 7, place)
        assert health({name: read(noise) for name, read in INDICATORS.items()}) == "noise healthy"


def test_noise_is_as_ill_as_its_worst_image():
    def found(probability, deviation):
        return health(
            {"P(z)": torch.tensor(probability), "spectral deviation": torch.tensor(deviation)}
        )

    assert found([0.4, 0.2], [5.0, 8.0]) == "noise healthy"
    assert found([0.4, 0.004], [5.0, 8.0]) == "noise strained"
    assert found([0.4, 0.4], [5.0, 20.0]) == "noise strained"
    assert found([0.4, 1e-9], [5.0, 8.0]) == "noise broken"
    assert found([0.4, 0.4], [5.0, 34.0]) == "noise broken"
    assert found([0.4, float("nan")], [5.0, 5.0]) == "noise broken"
    assert health({}) == "" and health({"P(z)": torch.tensor([0.5])}) == "noise healthy"


def standing(**changes) -> Standing:
    fields = dict(
        words=["12 of 30, 1 h 20 min left", "reward 0.412 → 0.523", "best 0.551, noise healthy"],
        foot=["memory: of 20 steps 12 recorded, 8 computed again by blocks, one after the other",
              "regularizer: spectrum 1, because none is connected"],
        steps=list(range(13)), rewards=[0.4 + 0.01 * step for step in range(13)], best=11,
    )  # fmt: skip
    return Standing(**fields | changes)


@pytest.mark.parametrize("size", [(128, 128), (1024, 1024), (512, 128), (96, 512), (2048, 512)])
def test_the_strip_lies_below_the_picture_and_covers_nothing(size):
    picture = Image.effect_noise(size, 80).convert("RGB")
    whole = with_strip(picture, standing())
    factor = SIDE / max(size)
    width, height = (round(side * factor) for side in size)
    assert (
        whole.width == max(width, NARROWEST)
        and height < whole.height <= height + 0.36 * whole.width
    )
    left = (whole.width - width) // 2
    shown = whole.crop((left, 0, left + width, height))
    expected = picture.resize((width, height), Image.Resampling.BICUBIC)
    assert np.array_equal(np.asarray(shown), np.asarray(expected))
    strip = np.asarray(whole.crop((0, height, whole.width, whole.height)).convert("L"))
    assert strip.std() > 10
    edge = np.concatenate([strip[:, :2].ravel(), strip[:, -2:].ravel(), strip[:1].ravel()])
    assert edge.max() < 60  # no words run over the edge


def test_the_curve_is_of_this_run():
    def strip(**changes):
        return np.asarray(with_strip(Image.new("RGB", (64, 64)), standing(**changes)))[SIDE:]

    rising, falling = strip(), strip(rewards=[0.4 - 0.01 * step for step in range(13)], best=0)
    assert (rising != falling).any()
    blue = (rising[..., 2] > 150) & (rising[..., 0] < 130)
    columns = np.flatnonzero(blue.any(axis=0))
    heights = [np.flatnonzero(blue[:, x]).mean() for x in columns]
    assert heights[0] > heights[-1] + 10  # up is better
    assert columns[-1] > 0.95 * SIDE
    for rewards in ([float("nan")] * 13, [0.5] * 13):
        assert strip(rewards=rewards, best=0).std() > 10
    assert strip(steps=[0], rewards=[0.5], best=0).std() > 10

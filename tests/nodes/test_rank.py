"""DNO Rank Images as ComfyUI executes it, and what its contact sheet shows."""

import math
from pathlib import Path

import comfy.model_management as management
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image

from ComfyUI_DNO.dno.objective import TermError, Weighted
from ComfyUI_DNO.nodes.drawing.canvas import Canvas, number
from ComfyUI_DNO.nodes.drawing.sheet import BEST, Tile, order, reduced, sheet
from ComfyUI_DNO.nodes.rank import DNORankImages
from ComfyUI_DNO.nodes.schema import to_image

from .test_history_nodes import REWARD, Rule, execute, fail, levels

SHAPES = {"square": (64, 64), "wide": (16, 512), "tall": (512, 16), "tiny": (1, 2)}
ORANGE = tuple(int(BEST[at : at + 2], 16) for at in (1, 3, 5))


def rank(image, reward=REWARD, keep=0):
    outputs, ui = execute(DNORankImages, image=image, reward=reward, keep=keep)
    (images,), (index,), (best,), (text,), scores, (drawn,) = outputs
    return images, index, best, text, scores, drawn, ui


def colours(count, height, width):
    """Pictures of one colour each, none of them alike, (B,H,W,3), and these colours as bytes."""
    hues = [(40 + 3 * index, 200 - 2 * index, 60 + (index * 37) % 150) for index in range(count)]
    return torch.tensor(hues).reshape(-1, 1, 1, 3).expand(-1, height, width, 3) / 255, hues


def codes(pixels):
    """Colours of three bytes as one number each, for fast comparisons; twice is as good as once."""
    pixels = np.asarray(pixels)
    return pixels.astype(np.int32) @ [65536, 256, 1] if pixels.shape[-1] == 3 else pixels


def box_of(sheet, colour):
    """Left, top, right and foot of the rectangle of this colour, all of whose pixels have it."""
    rows, columns = np.nonzero(codes(sheet) == codes(np.array(colour)))
    box = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    assert len(rows) == (box[2] - box[0]) * (box[3] - box[1])
    return box


def tiles(count, shape=(64, 64)):
    images, hues = colours(count, *shape)
    return [
        Tile(reduced(picture[None], count), f"#{index}", -index / 7)
        for index, picture in enumerate(to_image(images))
    ], hues


def test_pictures_come_best_first():
    image = levels(0.2, 0.9, 0.5)
    images, index, best, text, scores, _, ui = rank(image)
    assert torch.equal(images, image[[1, 2, 0]])
    assert scores == pytest.approx([-0.15, -0.75, -1.2], abs=1e-6)
    assert (index, best) == (1, scores[0]) and (type(index), type(best)) == (int, float)
    assert text.splitlines() == [
        "picture | reward | brightness | darkness",
        "1 *     | -0.15  | -0.1       | 0.1",
        "2       | -0.75  | -0.5       | 0.5",
        "0       | -1.2   | -0.8       | 0.8",
    ]
    assert ui["text"] == [text]


@pytest.mark.parametrize(("keep", "indices"), [(1, [1]), (2, [1, 2]), (9, [1, 2, 0])])
def test_only_the_best_are_kept(keep, indices):
    image = levels(0.2, 0.9, 0.5)
    images, _, _, text, scores, drawn, _ = rank(image, keep=keep)
    assert torch.equal(images, image[indices]) and len(scores) == len(indices)
    assert len(text.splitlines()) == 4
    assert torch.equal(drawn, rank(image)[5])  # the sheet shows them all


def test_of_equal_ones_the_first_and_alpha_is_handed_on():
    assert order([1.0, 2.0, 2.0, 1.0]) == [1, 2, 0, 3]
    image = torch.cat([levels(0.1, 0.5, 0.5), torch.zeros(3, 6, 8, 1)], dim=-1)
    image[2, 0, 0, 3] = 1
    assert torch.equal(rank(image)[0], image[[1, 2, 0]])
    assert torch.equal(rank(image[0])[0], image[:1])


def test_the_sheet_shows_the_pictures_in_their_order_on_the_node_too():
    image, hues = colours(3, 6, 8)
    blue = {"blue": Weighted(1.0, Rule(lambda image: image[:, 2, 0, 0]))}
    *_, drawn, ui = rank(image, blue)
    assert drawn.shape[0] == 1 and drawn.dtype == torch.float32
    pixels = drawn[0].mul(255).round().byte().numpy()
    boxes = [box_of(pixels, hue) for hue in reversed(hues)]
    assert boxes == sorted(boxes, key=lambda box: (box[1], box[0]))
    (saved,) = ui["images"]
    folder = Path(folder_paths.get_temp_directory(), saved["subfolder"])
    assert np.abs(np.asarray(Image.open(folder / saved["filename"])) - 1.0 * pixels).max() <= 1


@pytest.mark.parametrize("count", [1, 2, 7, 64])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_sheet_has_all_pictures_whole_and_apart(shape, count):
    entries, hues = tiles(count, shape)
    drawn = sheet(entries)
    pixels = codes(drawn)
    boxes = [box_of(pixels, hue) for hue in hues]
    width, height = entries[0].picture.size
    for left, top, right, foot in boxes:
        assert (right - left, foot - top) == (width, height)
    assert boxes == sorted(boxes, key=lambda box: (box[1], box[0]))
    assert 200 <= max(width, height) <= 1600
    assert math.isclose(width / height, shape[1] / shape[0], rel_tol=0.05)
    assert max(drawn.size) < 3072
    assert count < 7 or 0.6 < drawn.width / drawn.height < 2.5


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_a_sheet_has_all_scores_each_below_its_picture(shape):
    """Another score changes what is drawn right below its picture, and nothing else."""
    entries, hues = tiles(7, shape)
    first = entries[0]
    entries[0] = Tile(first.picture, "the longest name of all", first.score)  # sets the width
    plain = codes(sheet(entries))
    boxes = [box_of(plain, hue) for hue in hues]
    for index, (left, _, right, foot) in enumerate(boxes):
        other = list(entries)
        other[index] = Tile(entries[index].picture, entries[index].name, 8 if index == 0 else 0.888)
        rows, columns = np.nonzero(codes(sheet(other)) != plain)
        centre = (left + right) / 2
        assert len(rows) > 20 and foot < rows.min() < rows.max() < foot + 60
        nearest = [abs(centre - (a + b) / 2) for a, _, b, _ in boxes]
        room = min([gap for gap in nearest if gap > 1], default=plain.shape[1])
        assert abs(columns - centre).max() < 0.5 * room


def test_what_is_written_is_the_name_and_the_score():
    entries, hues = tiles(3)
    drawn = np.asarray(sheet(entries))
    left, _, right, foot = box_of(drawn, hues[1])
    width, size = right - left, 36
    canvas = Canvas(1200, 60)  # as finely drawn as the sheet
    canvas.text(0, size, "#1", size)
    canvas.text(width, size, number(-1 / 7), size, anchor="rm")
    expected = np.asarray(canvas.finish())[:, :width]
    strip = drawn[foot : foot + 60, left:right]
    assert (strip < 128).sum() > 900
    assert np.abs(strip[4:] - 1.0 * expected[4:]).mean() < 0.5


def test_the_best_is_framed_and_alone_in_it():
    entries, hues = tiles(6)
    drawn = np.asarray(sheet(entries))
    rows, columns = np.nonzero((drawn == ORANGE).all(-1))
    left, top, right, foot = box_of(drawn, hues[0])
    assert columns.min() < left and rows.min() < top and columns.max() >= right
    assert rows.max() > foot
    assert columns.max() < box_of(drawn, hues[1])[0] and rows.max() < box_of(drawn, hues[5])[1]
    alone = np.asarray(sheet(tiles(1)[0]))
    assert not (alone == ORANGE).all(-1).any()


def test_more_than_a_sheet_holds_is_said():
    image, hues = colours(70, 2, 2)
    count = {"first": Weighted(1.0, Rule(lambda image: -image[:, 0, 0, 0]))}
    images, index, _, _, scores, drawn, _ = rank(image, count)
    assert (len(images), index, len(scores)) == (70, 0, 70)
    pixels = drawn[0].mul(255).round().byte().numpy()
    shown = np.isin([codes(np.array(hue)) for hue in hues], codes(pixels))
    assert shown.tolist() == [True] * 64 + [False] * 6
    last = box_of(pixels, hues[63])[3]
    full = np.asarray(sheet(tiles(64, (2, 2))[0]))
    assert len(pixels) > len(full) and (pixels[last + 60 :].min() < 128)


def test_names_of_any_length_fit():
    long = [Tile(reduced(torch.rand(1, 3, 512, 8), 3), str(2**64 - 1), -1e-7) for _ in range(3)]
    drawn = np.asarray(sheet(long)).min(-1)
    assert (drawn[:, :2] == 255).all() and (drawn[:, -2:] == 255).all()


def test_what_goes_wrong_is_told_in_a_sentence():
    image = levels(0.1, 0.2)
    with pytest.raises(TermError, match="^The reward 'rule' failed: no such font$"):
        rank(image, fail(RuntimeError("no such font")))
    nan = {"rule": Weighted(1.0, Rule(lambda image: image.mean(dim=(1, 2, 3)) / 0 * 0))}
    with pytest.raises(ValueError, match="^The reward 'rule' gave nan for picture 0"):
        rank(image, nan)
    for wrong in (None, {}, "brightness"):
        with pytest.raises(ValueError, match="^The reward input is not a DNO reward"):
            rank(image, wrong)
    with pytest.raises(ValueError, match="^The image input is empty"):
        rank(image[:0])
    with pytest.raises(management.InterruptProcessingException):
        rank(image, fail(management.InterruptProcessingException()))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("broken", [0, 1, 2])
def test_a_picture_that_is_not_finite_comes_last_and_is_told(number, broken):
    """Under a reward that cannot see it and would score it best."""
    blind = {"blind": Weighted(1.0, Rule(lambda image: 9 - image.nan_to_num(-9).mean((1, 2, 3))))}
    image = levels(0.2, 0.9, 0.5)
    image[broken, 2, 3, 1] = number
    images, index, best, text, scores, _, ui = rank(image, blind)
    left = [other for other in (0, 2, 1) if other != broken]
    assert torch.equal(images[:2], image[left]) and index == left[0] and math.isfinite(best)
    assert scores[0] > scores[1] and math.isnan(scores[2])
    assert text.splitlines()[3].split() == [str(broken), "|", "nan", "|", "nan"]
    assert text.splitlines()[4].startswith(f"Picture {broken} of the image input: the decoded")
    assert "--fp32-vae" in text and ui["text"] == [text]


def test_pictures_that_are_all_not_finite_are_refused():
    with pytest.raises(ValueError, match="^Pictures 0, 1 of the image input: .* VAE") as caught:
        rank(torch.full((2, 6, 8, 3), math.nan))
    assert "\n" not in str(caught.value)


def test_the_server_ranks_and_shows_the_sheet(server):
    grey = {"width": 16, "height": 16, "batch_size": 1}
    rank = {"image": ["3", 0], "reward": ["4", 0], "keep": 0}
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": grey | {"color": 0x404040}},
        "2": {"class_type": "EmptyImage", "inputs": grey | {"color": 0x808080}},
        "3": {"class_type": "ImageBatch", "inputs": {"image1": ["1", 0], "image2": ["2", 0]}},
        "4": {"class_type": "DNOBrightnessReward", "inputs": {"target": 1.0, "weight": 1.0}},
        "5": {"class_type": "DNORankImages", "inputs": rank},
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["5", 4]}},
    }
    outputs = server.wait(server.submit(prompt), timeout=120)["outputs"]
    assert outputs["5"]["text"][0].splitlines()[1].startswith("1 *")
    assert len(outputs["5"]["images"]) == 1
    shown = [float(text) for text in outputs["6"]["text"]]
    assert shown == pytest.approx([-127 / 255, -191 / 255], abs=1e-5)

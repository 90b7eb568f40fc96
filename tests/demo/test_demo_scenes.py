"""Rich training pictures: things are where, and look as, their scene and their sentence say."""

from __future__ import annotations

import re

import pytest
import torch

from demo.mmdit import Denoiser
from demo.scenery import (
    COUNTABLE,
    GROUND_WORDS,
    GROUNDS,
    LIGHT_WORDS,
    LIGHTS,
    NUMBERS,
    PATTERN_WORDS,
    SIDES,
    Wish,
    plural,
    scene_words,
)  # fmt: skip
from demo.training import scene_latents
from demo.training.captions import STRANGE, Captions
from demo.training.diffusion import with_words
from demo.training.latents import Mixed
from demo.training.pictures import SIZE, Studio
from demo.training.progress import Session
from demo.training.scene_captions import LONGEST, Row, relation, scene_sentences
from demo.training.scene_latents import SceneLatents
from demo.training.scene_phrases import OPEN, fits, said_parts, wishes_of
from demo.training.scenes import NOTHING, Scenes, random_scenes
from demo.training.stage import Stage
from demo.vae import Encoder
from demo.vocabulary import BACKGROUND_PALETTE, BACKGROUNDS, CATALOGUE, COLOURS, CONCEPTS
from demo.weights import read_weights

from ..support.tiny_models import clip_tokenizer

MANY = 3000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def studio() -> Studio:
    """Icons of our own: green squares that fill the picture, with a white band on top."""
    icons = torch.zeros(len(CATALOGUE), 4, SIZE, SIZE)
    icons[:, 3] = 1
    icons[:, 1] = 0.8
    icons[:, :3, : SIZE // 4] = 1
    return Studio(icons)


@pytest.fixture(scope="module")
def stage(studio) -> Stage:
    return Stage(studio)


@pytest.fixture(scope="module")
def captions() -> Captions:
    return Captions(clip_tokenizer())


@pytest.fixture(scope="module")
def told(studio) -> list[tuple[Row, str]]:
    """Many scenes and their sentences."""
    scenes = random_scenes(studio, MANY, seeded())
    columns = {name: column.tolist() for name, column in scenes.columns().items()}
    rows = [Row(**{n: c[i] for n, c in columns.items()}) for i in range(MANY)]
    return list(zip(rows, scene_sentences(scenes, seeded(1)), strict=True))


def understood(told: list[tuple[Row, str]]) -> list[tuple[Row, str]]:
    """The same without words that mean nothing."""
    return [(row, " ".join(w for w in text.split() if w not in STRANGE)) for row, text in told]


def one(**changes) -> Scenes:
    """A single apple of half the size in the middle of black, but for the changes."""
    fields = {
        "concept": [CONCEPTS.index("apple"), NOTHING, NOTHING], "colour": [0, 0, 0],
        "place": [[0.5, 0.5]] * 3, "size": [0.5] * 3, "tilt": [0.0] * 3, "ground": 0,
        "tints": [BACKGROUNDS.index("black")] * 2, "light": 0, "side": 0, "shadow": False,
    }  # fmt: skip
    return Scenes(**{name: torch.tensor([value]) for name, value in (fields | changes).items()})


def box(picture: torch.Tensor) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of what is bright in (1, 3, S, S), as shares of the side."""
    bright = picture[0].amax(0) > 0.4
    rows, columns = bright.any(1).nonzero()[:, 0], bright.any(0).nonzero()[:, 0]
    edges = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return tuple(float(edge) / picture.shape[-1] for edge in edges)


def test_a_picture_depends_on_its_generator_alone(studio, stage):
    first, again, other = (random_scenes(studio, 8, seeded(seed)) for seed in (4, 4, 5))
    assert torch.equal(stage.draw(first, seeded(1)), stage.draw(again, seeded(1)))
    assert not torch.equal(first.place, other.place)
    pictures = stage.draw(random_scenes(studio, 64, seeded()), seeded())
    assert pictures.shape == (64, 3, SIZE, SIZE)
    assert pictures.min() >= 0
    assert pictures.max() <= 1


@pytest.mark.parametrize("size", [0.4, 0.5, 0.8])
@pytest.mark.parametrize("place", [(0.5, 0.5), (0.4, 0.55), (0.6, 0.45)])
def test_a_thing_is_where_its_scene_says_and_as_large(stage, place, size):
    picture = stage.draw(one(place=[list(place)] * 3, size=[size] * 3), seeded())
    left, top, right, bottom = box(picture)
    wanted = [place[0] - size / 2, place[1] - size / 2, place[0] + size / 2, place[1] + size / 2]
    seen = [left, top, right, bottom]
    assert seen == pytest.approx([min(max(edge, 0), 1) for edge in wanted], abs=0.02)


def test_tilt_is_clockwise(stage):
    """The white band on top of the thing comes to its right side."""
    upright, turned = (stage.draw(one(tilt=[tilt] * 3), seeded())[0, 0] for tilt in (0.0, 90.0))
    low, middle, high = int(0.29 * SIZE), SIZE // 2, int(0.71 * SIZE)
    assert upright[low, middle] > 0.9 > 0.3 > upright[middle, high]
    assert turned[middle, high] > 0.9 > 0.3 > turned[low, middle]


def test_lights_and_shadows_do_what_they_are_called(stage):
    gray = [BACKGROUNDS.index("gray")] * 2
    nothing = {"concept": [NOTHING] * 3, "tints": gray}

    def channels(**changes):
        return stage.draw(one(**nothing, **changes), seeded())[0]

    plain, warm, cold, dusk = (channels(light=index) for index in range(len(LIGHTS)))
    assert (warm[2] / warm[0]).mean() < 0.8 * (plain[2] / plain[0]).mean()
    assert (cold[0] / cold[2]).mean() < 0.85 * (plain[0] / plain[2]).mean()
    assert dusk.mean() < 0.8 * plain.mean()
    for index, name in enumerate(SIDES[1:], 1):
        lit = channels(side=index)
        halves = lit[:, :, : SIZE // 2].mean(), lit[:, :, SIZE // 2 :].mean()
        assert (halves[0] > 1.3 * halves[1]) == (name == "left")
    bare, shaded = (stage.draw(one(tints=gray, shadow=s), seeded())[0] for s in (False, True))
    change = (shaded - bare).mean(0)
    assert change.min() < -0.1  # below the thing
    assert change[SIZE * 3 // 4 :].mean() < 2 * change[: SIZE // 4].mean() <= 0


@pytest.mark.parametrize("ground", GROUNDS)
def test_every_ground_varies_with_the_noise(stage, ground):
    scene = one(concept=[NOTHING] * 3, ground=GROUNDS.index(ground), tints=[NOTHING] * 2)
    first, second = (stage.draw(scene, seeded(seed)) for seed in (0, 1))
    assert (first - second).abs().mean() > 0.01
    assert (first.std((2, 3)).amax() < 0.01) == (ground == "flat")


def test_a_named_ground_has_its_colour(stage):
    for index, colour in enumerate(BACKGROUND_PALETTE):
        picture = stage.draw(one(concept=[NOTHING] * 3, tints=[index] * 2), seeded(index))
        assert (picture[0].mean((1, 2)) - torch.tensor(colour.rgb)).abs().max() < 0.05


def test_scenes_are_of_the_kinds_that_they_should_be(studio):
    scenes = random_scenes(studio, MANY, seeded())
    single = scenes.count == 1
    assert 0.43 < single.float().mean() < 0.51
    assert set(scenes.count.tolist()) == {1, 2, 3}
    sizes = scenes.size[single, 0]
    assert 0.4 <= sizes.min() < 0.42
    assert 0.88 < sizes.max() <= 0.91
    assert (scenes.place[single, 0] - 0.5).abs().max() <= 0.33
    apart = (scenes.place[~single, 0] - scenes.place[~single, 1]).norm(dim=1)
    assert apart.min() > 0.4
    assert torch.bincount(scenes.ground).min() > 0.02 * MANY
    vanishing = studio.ground_like[scenes.colour] == scenes.tints[:, :1]
    assert vanishing.float().mean() < 0.002


def test_sentences_say_what_is_true(told):
    """Read with other code than what wrote them."""
    for row, text in understood(told):
        words = text.split()
        names = [CONCEPTS[i] for i in row.concept if i != NOTHING]
        count = len(names)
        place = re.search(r"(?:on the|at the top|at the bottom|at the) (left|right)\b", text)
        if place and count == 1 and f"from the {place[1]}" not in place[0]:
            assert (row.place[0][0] < 0.5) == (place[1] == "left"), text
        for word, low in (("top", True), ("bottom", False)):
            if f"at the {word}" in text:
                assert (row.place[0][1] < 0.4) or not low, text
                assert (row.place[0][1] > 0.6) or low, text
        for number, word in enumerate(NUMBERS[1:], 2):
            assert word not in words or (count == number and len(set(names)) == 1), text
        for light, phrases in LIGHT_WORDS.items():
            if any(phrase in text for phrase in phrases):
                assert LIGHTS[row.light] == light, text
        if found := re.search(r"from the (left|right)", text):
            assert SIDES[row.side] == found[1], text
        if "shadow" in words:
            assert row.shadow, text
        if "small" in words:
            assert row.size[0] < 0.55, text
        if found := re.search(r"tilted to the (left|right)", text):
            assert (row.tilt[0] > 0) == (found[1] == "right"), text


def test_sentences_name_grounds_and_colours_that_are_there(told):
    said = 0
    for row, text in understood(told):
        ground = GROUNDS[row.ground]
        for name, phrases in GROUND_WORDS.items():
            if any(text.endswith(phrase) for phrase in phrases):
                assert ground == name, text
        for name, word in PATTERN_WORDS.items():
            assert word not in text.split() or ground == name, text
        shown = {COLOURS[c - 1] for c in row.colour if c}
        if row.tints[0] != NOTHING:
            shown |= {BACKGROUNDS[t] for t in row.tints}
        named = {word for word in text.split() if word in (*COLOURS, "gray")}
        named -= {"blue"} if re.search("blue (sky|light)", text) else set()
        assert named <= shown, (text, shown)
        said += bool(named)
    assert said > MANY / 3


def test_relations_are_seen_from_the_first_thing(told):
    held = 0
    for row, text in understood(told):
        found = re.search(r" (?:to the )?(left of|right of|above|below) ", text)
        names = [CONCEPTS[i] for i in row.concept if i != NOTHING]
        if not found or not row.pair or any(" " in n for n in names):
            continue
        before = text[: found.start()]
        if not any(name in before.split() for name in names):
            continue
        first = next(i for i, name in enumerate(names) if name in before.split())
        (x, y), (other_x, other_y) = row.place[first], row.place[1 - first]
        true = {
            "left of": x < other_x, "right of": x > other_x, "above": y < other_y,
            "below": y > other_y,
        }  # fmt: skip
        assert true[found[1]], text
        held += 1
    assert held > 100
    row = next(row for row, _ in told if row.pair)
    assert relation(row) in ("left of", "right of", "above", "below", None)


def test_sentences_fit_and_their_words_are_known(told, captions):
    tokens = captions.tokens([text for _, text in told])
    unknown = (tokens.rows == 0) & ~tokens.special
    strange = sum(any(word in STRANGE for word in text.split()) for _, text in told)
    assert unknown.any(1).sum() <= strange
    assert max(len(text.split()) for _, text in told) <= LONGEST
    assert 0.05 < sum(not text for _, text in told) / MANY < 0.15


def test_a_larger_vocabulary_leaves_old_prompts_alone(captions):
    weights = read_weights()
    state = with_words(weights.denoiser, weights.identifiers, captions)
    texts = ["", "a red cat on a blue background", "a photo of two apples"]
    outputs = []
    for words, known in ((weights.denoiser, weights.identifiers), (state, captions.identifiers)):
        network = Denoiser(len(known) + 1)
        network.load_state_dict(words)
        tokens = Captions(clip_tokenizer(), known).tokens(texts[:2])
        with torch.no_grad():
            noise = torch.randn(2, 16, 16, 16, generator=seeded())
            outputs.append(network(noise, torch.tensor([0.7, 0.7]), tokens))
    assert torch.equal(*outputs)
    assert Captions(clip_tokenizer(), rich=False).identifiers.tolist() == (
        weights.identifiers.tolist()
    )
    rows = captions.tokens(["apple", "apples"]).rows[:, 1]
    table = state["text.table.weight"]
    assert torch.equal(*table[rows])
    meadow = captions.tokens(["meadow"]).rows[0, 1]
    assert 0 < table[meadow].norm() < 0.2 * table[rows[0]].norm()  # about as an unknown word
    assert set(weights.identifiers.tolist()) <= set(captions.identifiers.tolist())


class Numbered:
    """Pictures that all hold one number, with that number for a sentence."""

    def __init__(self, number: int):
        self.number = number

    def batch(self, step, count, generator):
        return torch.full((count, 16, 16, 16), float(self.number)), [str(self.number)] * count

    def held_out(self, count):
        return [self.batch(0, count, None)]


def test_a_share_of_every_batch_is_plain():
    mixed = Mixed(Numbered(1), Numbered(2), 0.6)
    latents, sentences = mixed.batch(0, 10, seeded())
    assert sentences == ["1"] * 6 + ["2"] * 4
    assert latents[:, 0, 0, 0].tolist() == [float(sentence) for sentence in sentences]
    assert [said for _, said in mixed.held_out(2)] == [["1", "1"], ["2", "2"]]


def test_a_step_sees_the_same_pictures_after_an_interruption(stage, tmp_path, monkeypatch):
    monkeypatch.setattr(scene_latents, "PIECE", 16)
    monkeypatch.setattr(scene_latents, "HELD_OUT", 16)
    encoder = Encoder().eval()
    whole = SceneLatents(stage, encoder, tmp_path / "whole", pieces=6)
    for step in (0, 100, 200):
        latents, sentences = whole.batch(step, 8, seeded(step))
    resumed = SceneLatents(stage, encoder, tmp_path / "whole", pieces=6)
    afresh = SceneLatents(stage, encoder, tmp_path / "other", pieces=6)
    for data in (resumed, afresh):
        again, same = data.batch(200, 8, seeded(200))
        assert torch.equal(again, latents)
        assert same == sentences
    assert len(list((tmp_path / "whole").glob("*.pt"))) == 6
    first, second = (data.held_out(8)[1] for data in (whole, afresh))
    assert torch.equal(first[0], second[0])
    assert first[1] == second[1]


def test_a_wish_is_worded_like_the_training_sentences(captions):
    wishes = {
        Wish("cat"): "a cat",
        Wish("apple", "red", background="blue"): "a red apple on a blue background",
        Wish("apple", count=2): "two apples",
        Wish("cat", "black", size="small", place="left", ground="meadow"):
            "a small black cat on the left in a meadow",
        Wish("cat", relation="left of", other="star", other_colour="red"):
            "a cat left of a red star",
        Wish("owl", ground="stripes", background="orange", light="dusk"):
            "an owl on an orange striped background at dusk",
    }  # fmt: skip
    for wish, text in wishes.items():
        assert wish.prompt == text
        assert (captions.tokens([text]).rows[0, 1 : len(text.split()) + 1] > 0).all()


def test_plurals_are_new_words():
    assert "apples" in scene_words()
    assert plural("strawberry") == "strawberries"
    assert "fish" not in COUNTABLE


def test_a_sentence_about_a_scene_fits_it_and_not_when_altered(studio):
    scenes = random_scenes(studio, 300, seeded())
    wishes, altered = (wishes_of(scenes, bad, seeded(2)) for bad in (False, True))
    right, wrong = fits(scenes, wishes)
    assert right.diagonal().all()
    assert not wrong.diagonal().any()
    assert not (right & wrong).any()
    spoilt_right, spoilt_wrong = fits(scenes, altered)
    assert not spoilt_right.diagonal().any()
    assert spoilt_wrong.diagonal().float().mean() > 0.97  # the rest is in doubt
    assert wrong.float().mean() > 0.95  # of other pictures nearly all are wrong
    named = (said_parts(wishes) != OPEN).any(0).tolist()
    assert all(named), named


def test_what_cannot_be_told_is_neither_right_nor_wrong(studio):
    middle, aside = one(), one(place=[[0.3, 0.5]] * 3)
    wish = [Wish("apple", place="left"), Wish("apple", place="right"), Wish("apple", "red")]
    right, wrong = fits(Scenes.cat([middle, aside, one(light=1)]), wish)
    assert right.tolist() == [[False] * 3, [True, False, False], [False] * 3]
    assert wrong.tolist() == [[False, False, True], [False, True, True], [False] * 3]


def test_a_session_spends_its_budget_by_computing_not_by_waiting(tmp_path, monkeypatch):
    clock = {"process_time": 5.0, "monotonic": 100.0}
    for name in clock:
        monkeypatch.setattr(f"demo.training.progress.time.{name}", lambda name=name: clock[name])
    session = Session(tmp_path / "a.session", minutes=1)
    clock["monotonic"] += 30  # waits
    assert session.seconds == 0
    clock["process_time"] += 30
    assert session.progress == 0.5 / torch.get_num_threads()
    spent = session.seconds
    session.save()
    clock["process_time"] = 0.0  # another process
    assert Session(tmp_path / "a.session", minutes=1).seconds == spent

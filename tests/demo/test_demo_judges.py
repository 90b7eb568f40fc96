"""The judges of rich pictures and of quality: what they are taught, and what they make of it."""

from __future__ import annotations

import pytest
import torch

from demo import reward_model
from demo.classifier import COLOUR_CLASSES
from demo.quality import FAULTS, Quality
from demo.scene_judge import CELL_PARTS, CELLS, WHOLE_PARTS, SceneJudge, Thing, arrangement, verdict
from demo.scenery import GROUNDS, LIGHTS, Wish
from demo.training.contrastive import image_embed
from demo.training.evaluate_scenes import COUNTS, drawn, marks, scene_wishes
from demo.training.faults import NONE, adversarial, melted, spoiled
from demo.training.pictures import SIZE, Studio
from demo.training.quality import area
from demo.training.scene_judge import loss_of
from demo.training.scenes import NOTHING, Scenes
from demo.training.stage import Stage
from demo.vae import Decoder
from demo.vocabulary import CATALOGUE, CONCEPTS

ROOM = {"ground": "room", "background": "red", "light": "warm", "side": "left"}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_scenes() -> Scenes:
    """A blue cat left of a dog in a warm room; a large star on the right on red."""
    cat, dog, star = (CONCEPTS.index(name) for name in ("cat", "dog", "star"))
    return Scenes(
        concept=torch.tensor([[cat, dog, NOTHING], [star, NOTHING, NOTHING]]),
        colour=torch.tensor([[COLOUR_CLASSES.index("blue"), 0, 0], [0, 0, 0]]),
        place=torch.tensor([[[0.25, 0.5], [0.75, 0.55], [0.5, 0.5]], [[0.62, 0.5]] * 3]),
        size=torch.tensor([[0.4, 0.45, 0.4], [0.8, 0.8, 0.8]]),
        tilt=torch.zeros(2, 3),
        ground=torch.tensor([GROUNDS.index("room"), 0]),
        tints=torch.tensor([[NOTHING, NOTHING], [3, 3]]),
        light=torch.tensor([LIGHTS.index("warm"), 0]),
        side=torch.tensor([0, 0]),
        shadow=torch.tensor([False, True]),
    )


def test_the_judge_learns_what_its_answers_mean():
    """What it is taught on two pictures is what it then finds in them."""
    torch.manual_seed(0)
    icons = torch.rand(len(CATALOGUE), 4, SIZE // 32, SIZE // 32)
    icons = icons.repeat_interleave(32, 2).repeat_interleave(32, 3)
    icons[:, 3] = 1
    stage, scenes = Stage(Studio(icons), 64), two_scenes()
    pictures = stage.draw(scenes, seeded())
    judge = SceneJudge()
    adam = torch.optim.AdamW(judge.parameters(), lr=3e-3)
    for _ in range(150):
        loss = loss_of(judge, pictures, scenes)
        adam.zero_grad()
        loss.backward()
        adam.step()
    for layer in judge.modules():  # the statistics of these two pictures, not of the past
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.track_running_stats, layer.running_mean, layer.running_var = False, None, None
    judge.eval().requires_grad_(False)
    first, second = judge.things(pictures)
    assert sorted(thing.concept for thing in first) == ["cat", "dog"]
    cat = next(thing for thing in first if thing.concept == "cat")
    assert (cat.x, cat.y, cat.size) == pytest.approx((0.25, 0.5, 0.4), abs=0.06)
    assert [thing.concept for thing in second] == ["star"]
    assert judge.settings(pictures)[0]["light"] == "warm"
    assert [setting["ground"] for setting in judge.settings(pictures)] == ["room", "flat"]
    wish = Wish("cat", relation="left of", other="dog", ground="room", light="warm")
    for part, right in verdict(first, judge.settings(pictures)[0], wish).items():
        assert right, part
    assert (judge.recognised(pictures, "star") > 0.5).tolist() == [False, True]


def test_the_judge_takes_any_size_and_has_a_gradient():
    judge = SceneJudge().eval()
    image = torch.rand(2, 3, 96, 160, requires_grad=True)
    seen = judge(image)
    for parts, shape in ((CELL_PARTS, (CELLS, CELLS)), (WHOLE_PARTS, ())):
        for name, count in parts.items():
            assert seen[name].shape == (2, count, *shape)
    judge.recognised(image, "cat").sum().backward()
    assert image.grad.abs().sum() > 0


def thing(concept: str, x: float = 0.5, y: float = 0.5, size: float = 0.5, colour: str = "red"):
    return Thing(concept, colour, x, y, size, 1.0)


@pytest.mark.parametrize(
    ("wish", "things", "right"),
    [
        (Wish("cat", "red"), [thing("cat")], {"thing": True, "colour": True}),
        (Wish("cat", "blue"), [thing("cat")], {"thing": True, "colour": False}),
        (Wish("cat", count=2), [thing("cat"), thing("cat", 0.9)], {"thing": True, "count": True}),
        (Wish("cat", count=2), [thing("cat"), thing("dog")], {"thing": True, "count": False}),
        (Wish("cat", count=2), [thing("cat")] * 3, {"thing": True, "count": False}),
        (Wish("cat", size="small"), [thing("cat", size=0.45)], {"thing": True, "size": True}),
        (Wish("cat", size="big"), [thing("cat", size=0.45)], {"thing": True, "size": False}),
        (Wish("cat", place="left"), [thing("cat", 0.3)], {"thing": True, "place": True}),
        (Wish("cat", place="top"), [thing("cat", 0.3)], {"thing": True, "place": False}),
        (Wish("cat", place="middle"), [thing("cat", 0.55)], {"thing": True, "place": True}),
        (
            Wish("cat", relation="above", other="dog"),
            [thing("cat", y=0.2), thing("dog", y=0.8)],
            {"thing": True, "other": True, "relation": True},
        ),
        (
            Wish("cat", relation="left of", other="dog"),
            [thing("cat", y=0.2), thing("dog", y=0.8)],
            {"thing": True, "other": True, "relation": False},
        ),
        (Wish("cat", ground="room", light="left"), [],
         {"thing": False, "ground": True, "light": True}),
        (Wish("cat", background="blue", light="cold"), [thing("cat")],
         {"thing": True, "background": False, "light": False}),
    ],
)  # fmt: skip
def test_a_verdict_is_of_what_the_wish_names(wish, things, right):
    assert verdict(things, ROOM, wish) == right


@pytest.mark.parametrize(
    ("wish", "things", "right"),
    [
        (Wish("cat", ground="room"), [], {"thing": False, "ground": True}),
        (Wish("cat", count=2), [thing("dog"), thing("car")], {"thing": True, "count": True}),
        (Wish("cat", count=3), [thing("dog"), thing("car")], {"thing": True, "count": False}),
        (Wish("cat", relation="above", other="dog"), [thing("car"), thing("star")],
         {"thing": True, "count": True}),
        (Wish("cat", relation="above", other="dog"), [thing("cat")],
         {"thing": True, "count": False}),
        (Wish("cat", "red", place="left"), [thing("dog", 0.3)],
         {"thing": True, "colour": True, "place": True}),
        (Wish("cat", size="small"), [thing("dog", size=0.9)], {"thing": True, "size": False}),
    ],
)  # fmt: skip
def test_an_arrangement_needs_no_names(wish, things, right):
    assert arrangement(things, ROOM, wish) == right


def test_rich_prompts_are_fixed_and_counted():
    wishes = scene_wishes()
    assert wishes == scene_wishes()
    assert wishes != scene_wishes(seed=1)
    assert {kind: len(each) for kind, each in wishes.items()} == COUNTS
    assert sum(COUNTS.values()) == 64

    every, images = drawn(lambda prompt, seed: torch.full((1, 3, 8, 8), float(seed % 2)), wishes)
    assert len(every) == len(images) == 64

    def kind(image, wish):
        return {"thing": bool(image.mean() > 0.5), "named": wish.count > 1}

    assert marks(kind, every, images) == {"thing": (32, 64), "named": (COUNTS["count"], 64)}


# Quality


@pytest.fixture(scope="module")
def pictures() -> torch.Tensor:
    """Soft coloured shapes."""
    coarse = torch.rand(4, 3, 8, 8, generator=seeded())
    large = torch.nn.functional.interpolate(coarse, (128, 128), mode="nearest")
    return 0.25 + 0.5 * large


@pytest.fixture(scope="module")
def clip():
    return reward_model.stored()[0]


def roughness(picture: torch.Tensor) -> torch.Tensor:
    return picture.diff(dim=3).square().mean((1, 2, 3))


def test_faults_are_what_they_are_called(pictures, clip):
    spoilt = {
        name: spoiled(pictures, torch.full((4,), index), clip, seeded(index))
        for index, name in enumerate(FAULTS)
        if name != "melted"
    }
    untouched = spoiled(pictures, torch.full((4,), NONE), clip, seeded())
    assert torch.equal(untouched, pictures)
    spread = [(p.amax(1) - p.amin(1)).mean((1, 2)) for p in (pictures, spoilt["saturated"])]
    assert (roughness(spoilt["blurred"]) < 0.7 * roughness(pictures)).all()
    assert (spread[1] > 1.3 * spread[0]).all()
    assert (roughness(spoilt["noisy"]) > 1.05 * roughness(pictures)).all()
    change = (spoilt["adversarial"] - pictures).abs()
    assert change.mean() > 0.01
    assert change.max() <= 0.081
    for picture in spoilt.values():
        assert picture.min() >= 0
        assert picture.max() <= 1


def test_an_adversarial_fault_moves_the_embedding_as_it_wants(pictures, clip):
    generator = seeded(3)
    int(torch.randint(3, (1,), generator=generator))
    towards = torch.randn(4, clip.config.projection_dim, generator=generator)
    changed = adversarial(pictures, clip, seeded(3))

    def agreement(picture):
        small = torch.nn.functional.interpolate(picture, (64, 64), mode="area")
        return (image_embed(clip, small) * towards).sum(1)

    assert (agreement(changed) > agreement(pictures)).all()


def test_melted_pictures_come_from_disturbed_latents():
    decoder, latent = Decoder().eval(), torch.randn(2, 16, 16, 16, generator=seeded())
    first, again, other = (melted(latent, decoder, seeded(seed)) for seed in (0, 0, 1))
    assert first.shape == (2, 3, 128, 128)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_clean_picture_has_none_of_the_faults(pictures):
    judge = Quality().eval()
    faults = torch.stack(list(judge.faults(pictures).values()))
    assert torch.allclose(judge.clean(pictures), (1 - faults).prod(0), atol=1e-6)
    image = torch.rand(2, 3, 96, 160, requires_grad=True)
    judge.clean(image).sum().backward()
    assert image.grad.abs().sum() > 0


def test_area_is_the_chance_of_the_right_order():
    score = torch.tensor([0.1, 0.4, 0.35, 0.8])
    positive = torch.tensor([False, False, True, True])
    assert area(score, positive) == pytest.approx(0.75)
    assert area(torch.zeros(4), positive) == pytest.approx(0.5)

"""The nodes that the bridge makes of rewards and regularizers, and the nodes that combine them."""

import dataclasses
import inspect
from pathlib import Path
from typing import Annotated

import pytest
import torch
from comfy_api.latest import io

from ComfyUI_DNO.dno.declared import Declared
from ComfyUI_DNO.dno.fields import (
    Choice,
    Colour,
    Hidden,
    Image,
    Mask,
    Range,
    Switch,
    fields_of,
)
from ComfyUI_DNO.dno.objective import Reward, Weighted
from ComfyUI_DNO.nodes import bridge, combine, regularizers, rewards, schema
from ComfyUI_DNO.nodes.host import compat
from ComfyUI_DNO.regularizers import REGULARIZERS
from ComfyUI_DNO.rewards import MODIFIERS, REWARDS, Darkness

from ..support.examples import build, mask, picture
from ..support.tiny_models import tiny

NODES = [*rewards.NODES, *regularizers.NODES, *combine.NODES]
MADE = rewards.NODES + regularizers.NODES[:-1]  # the last is No Regularizer
BRIDGED = list(zip(MADE, REWARDS + MODIFIERS + REGULARIZERS, strict=True))

every_node = pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
every_pair = pytest.mark.parametrize("node, cls", BRIDGED, ids=lambda value: value.__name__)


def values_of(node, cls):
    """What ComfyUI hands to the node: its widgets' defaults, and pictures for its sockets."""
    values = {}
    for given in node.GET_SCHEMA().inputs:
        if isinstance(given, io.Image.Input):
            values[given.id] = picture(2).movedim(1, -1)
        elif isinstance(given, io.Mask.Input):
            values[given.id] = mask()
        elif "DNO_REWARD_MODEL" in given.get_io_type():
            values[given.id] = tiny(fields_of(cls)[given.id][0].kinds[0].title)
        elif given.id == "prompt":
            values[given.id] = "a red fox"
        elif given.id == "reward":
            values[given.id] = {"darkness": Weighted(2.5, Darkness())}
        elif hasattr(given, "default"):
            values[given.id] = given.default
    return values


@every_node
def test_every_node_says_what_it_is(node):
    info = node.GET_NODE_INFO_V1()
    assert info["name"] == node.__name__
    assert info["name"].isascii() and info["name"].startswith("DNO")
    assert info["category"].startswith(("sampling/DNO/rewards/", "sampling/DNO/regularizers"))
    assert ". (" in info["description"] or "search_aliases" in info
    assert info["output"] in (["DNO_REWARD"], ["DNO_REGULARIZER"])
    assert all(info["output_tooltips"])
    for group in info["input"].values():
        for name, (_, options) in group.items():
            assert options.get("tooltip"), name
            if "min" in options:
                assert options["min"] <= options["default"] <= options["max"], name
                assert options["step"] > 0


@pytest.mark.parametrize(
    "word, name",
    [
        ("darker", "Darkness"), ("brighter", "Brightness"), ("prettier", "Aesthetic"),
        ("beautiful", "Aesthetic"), ("quality", "PickScore"), ("grayscale", "BlackAndWhite"),
        ("seamless", "Tiling"), ("tile", "Tiling"), ("symmetric", "Symmetry"),
        ("face", "ImageSimilarity"), ("prompt adherence", "CLIPTextSimilarity"),
        ("preference", "HPSv2"), ("style", "StyleSimilarity"), ("small file", "FileSize"),
    ],
)  # fmt: skip
def test_everyday_words_find_a_reward(word, name):
    node = next(node for node in NODES if node.__name__ == f"DNO{name}Reward")
    declared = node.GET_SCHEMA()
    assert word in getattr(declared, "search_aliases", declared.description)


def test_node_ids_are_unique():
    assert len({node.GET_SCHEMA().node_id for node in NODES}) == len(NODES)


@every_pair
def test_a_class_becomes_a_node_by_its_name_docstring_and_fields(node, cls):
    kind = "Regularizer" if cls in REGULARIZERS else "Reward"
    declared = node.GET_SCHEMA()
    assert declared.node_id == f"DNO{cls.__name__}{kind}"
    assert declared.display_name.replace(" ", "") == cls.__name__ + kind
    assert declared.category == f"sampling/DNO/{kind.lower()}s" + f"/{cls.group}" * bool(cls.group)
    assert declared.description.startswith(" ".join(inspect.getdoc(cls).split("\n\n")[0].split()))
    own = [*fields_of(cls)]
    inputs = ["reward", *own] if cls in MODIFIERS else [*own, "weight"]
    assert [given.id for given in declared.inputs] == inputs


@every_pair
def test_executing_a_node_gives_one_named_weighted_term(node, cls):
    values = values_of(node, cls)
    if "weight" in values:
        assert values["weight"] == 1.0
        values["weight"] = 2.5
    with torch.inference_mode():
        (terms,) = node.execute(**values).result
    ((name, term),) = terms.items()
    assert term.weight == 2.5
    if cls in MODIFIERS:
        assert name == build(cls).label.format("darkness") != "darkness"
    else:
        assert name == bridge.term_name(cls)
        assert isinstance(term.function, cls)


@every_pair
def test_a_reward_made_in_inference_mode_has_a_gradient_later(node, cls):
    with torch.inference_mode():
        values = {
            name: value.clone() if isinstance(value, torch.Tensor) else value
            for name, value in values_of(node, cls).items()
        }
        (terms,) = node.execute(**values).result
    (term,) = terms.values()
    if cls not in REGULARIZERS and term.function.differentiable:
        image = picture(dtype=torch.float64)  # no conversion hides the reference
        if term.function.space == "latent":
            image = torch.cat([image, image[:, :1]], 1)
        image.requires_grad_()
        term.function(image).sum().backward()
        assert image.grad.abs().sum() > 0


@every_node
def test_every_node_has_a_help_page_that_names_its_inputs(node, pack):
    page = (Path(pack.__file__).parent / "web" / "docs" / f"{node.__name__}.md").read_text("utf-8")
    declared = node.GET_SCHEMA()
    assert page.startswith(f"# {declared.display_name}\n")
    for given in declared.inputs:
        assert f"`{given.id}`" in page


@dataclasses.dataclass(frozen=True, eq=False)
class Everything(Reward):
    """One field of each kind."""

    image: Annotated[torch.Tensor, Image(help="a picture")]
    count: Annotated[int, Range(1, 9, step=2, help="a whole number")] = 3
    share: Annotated[float, Range(0, 1, step=0.1, help="a number")] = 0.5
    way: Annotated[str, Choice(("up", "down"), help="a choice")] = "down"
    on: Annotated[bool, Switch(help="a switch")] = True
    tint: Annotated[str, Colour(help="a colour")] = "#123456"
    area: Annotated[torch.Tensor | None, Mask(help="a mask")] = None

    def __call__(self, image):
        return image.mean((1, 2, 3))


def test_each_kind_of_field_becomes_its_widget_or_socket():
    node = bridge.reward_node(Everything)
    inputs = node.GET_NODE_INFO_V1()["input"]
    required, optional = inputs["required"], inputs["optional"]
    assert required["image"] == ("IMAGE", {"tooltip": "a picture"})
    assert optional["area"] == ("MASK", {"tooltip": "a mask"})
    kind, options = required["count"]
    assert kind == "INT" and all(isinstance(options[key], int) for key in ("min", "max", "step"))
    kind, options = required["share"]
    assert kind == "FLOAT" and isinstance(options["max"], float)
    assert required["way"][1]["options"] == ["up", "down"]
    assert required["on"][0] == "BOOLEAN"
    assert required["tint"][0] == "STRING"


@dataclasses.dataclass(frozen=True)
class Grown(Declared):
    """Has more fields than it had."""

    old: Annotated[float, Range(0, 1, step=0.1, help="was there")] = 0.5
    new: Annotated[int, Range(0, 9, 1, "came later", optional=True, advanced=True)] = 3
    inner: Annotated[object, Hidden()] = "set by code"


def test_a_field_may_be_newer_than_saved_workflows_or_hidden():
    node = bridge.plain_node(Grown, "Thing", schema.OptionsSocket)
    inputs = node.GET_NODE_INFO_V1()["input"]
    assert list(inputs["required"]) == ["old"] and list(inputs["optional"]) == ["new"]
    assert inputs["optional"]["new"][1]["default"] == 3
    assert node.execute(old=0.5).result == (Grown(),)


def test_pictures_and_masks_arrive_in_the_layout_of_the_engine():
    with torch.inference_mode():
        image, area = torch.rand(2, 5, 7, 4), torch.rand(5, 7)
        (terms,) = bridge.reward_node(Everything).execute(weight=1.0, image=image, area=area).result
    reward = terms["everything"].function
    assert reward.image.shape == (2, 3, 5, 7)
    assert torch.equal(reward.image[1, 2], image[1, :, :, 2])
    assert reward.area.shape == (1, 5, 7)
    assert not reward.image.is_inference() and not reward.area.is_inference()


def test_the_layout_of_images_goes_there_and_back():
    image = torch.rand(2, 5, 7, 3)
    assert torch.equal(schema.to_bhwc(schema.to_image(image)), image)
    with torch.inference_mode():
        assert not schema.to_image(torch.rand(1, 1, 1, 3)).is_inference()
        assert not schema.to_mask(torch.rand(1, 1, 1)).is_inference()
    grey = schema.to_image(torch.rand(1, 5, 7, 1))
    assert grey.shape == (1, 3, 5, 7) and torch.equal(grey[:, 0], grey[:, 2])


def test_names_are_split_into_words():
    size = type("JPEGSize", (Declared,), {})
    assert bridge.words(type("BlackAndWhite", (Declared,), {})) == "Black And White"
    assert (bridge.words(size), bridge.term_name(size)) == ("JPEG Size", "JPEG size")
    named = type("PickScore", (Declared,), {"title": "PickScore"})
    assert (bridge.words(named), bridge.term_name(named)) == ("PickScore", "PickScore")


def test_keywords_that_this_comfyui_does_not_know_are_dropped():
    widget = compat.supported(io.Float.Input, "mu", default=0.5, not_yet_invented=True)
    assert widget.default == 0.5
    declared = schema.schema(node_id="A", display_name="B", not_yet_invented=1)
    assert declared.display_name == "B"


def test_a_bad_value_reaches_the_user_as_one_sentence():
    colour = next(node for node in rewards.NODES if node.__name__ == "DNOColourReward")
    with pytest.raises(ValueError, match="write it as #rrggbb"):
        colour.execute(weight=1.0, colour="blue", tolerance=0.2, lightness=0.5)


@pytest.mark.parametrize("value", [torch.zeros(1, 0, 4, 3), torch.full((1, 4, 4, 3), float("nan"))])
def test_an_empty_or_broken_picture_is_explained(value):
    checked = dataclasses.make_dataclass(
        "Checked",
        [("image", Annotated[torch.Tensor, Image(help="x")])],
        bases=(Declared,),
        namespace={"__doc__": "Checks."},
        frozen=True,
    )
    with pytest.raises(ValueError, match="^Checked: image (has shape|contains NaN)"):
        bridge.reward_node(checked).execute(weight=1.0, image=value)

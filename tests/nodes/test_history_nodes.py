"""The nodes that show a run and score pictures, as ComfyUI executes them, and their help pages."""

import asyncio
import dataclasses
import inspect
import json
import math
import re
from pathlib import Path

import comfy.model_management as management
import execution
import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image

from ComfyUI_DNO.dno.film import Film
from ComfyUI_DNO.dno.objective import Reward, TermError, Weighted
from ComfyUI_DNO.nodes.best_seed import DNOBestSeed
from ComfyUI_DNO.nodes.history import DNOHistoryFrames, DNOHistoryPlot, chosen, numbers, summary
from ComfyUI_DNO.nodes.history_data import DNOHistoryData
from ComfyUI_DNO.nodes.history_iteration import DNOHistoryIteration
from ComfyUI_DNO.nodes.options import NODES as OPTIONS
from ComfyUI_DNO.nodes.rank import DNORankImages
from ComfyUI_DNO.nodes.sampler import DNOSampler, DNOSamplerCustom
from ComfyUI_DNO.nodes.score import DNOScoreImages
from ComfyUI_DNO.rewards import Brightness, Darkness

from ..support import tiny
from ..support.histories import climb

DOCS = Path(__file__).resolve().parents[2] / "web" / "docs"
NODES = [
    DNOHistoryPlot,
    DNOHistoryFrames,
    DNOHistoryData,
    DNOHistoryIteration,
    DNOScoreImages,
    DNORankImages,
    DNOBestSeed,
]
REWARD = {"brightness": Weighted(2.0, Brightness(1.0)), "darkness": Weighted(0.5, Darkness())}
PLOT = {"width": 384, "height": 256}
FRAMES = {"every": 1, "maximum": 1000, "image": 0, "caption": False}


def execute(node, **values):
    """(outputs, ui) as ComfyUI's executor makes them of a node, and as its history keeps them."""
    inputs = {name: [value] for name, value in values.items()}
    with torch.inference_mode():
        outputs, ui, *_ = asyncio.run(execution.get_output_data("prompt", "7", node, inputs))
    return outputs, json.loads(json.dumps(ui, allow_nan=False))


def levels(*values, height=6, width=8):
    """Grey pictures of these levels, (B,H,W,3)."""
    return torch.tensor(values).reshape(-1, 1, 1, 1).expand(-1, height, width, 3).contiguous()


def test_the_plot_arrives_as_an_image_and_on_the_node():
    outputs, ui = execute(DNOHistoryPlot, history=climb(), **PLOT)
    ((image,),) = outputs
    assert image.shape == (1, 256, 384, 3) and image.dtype == torch.float32
    assert 0 <= image.min() < 0.3 and image.max() == 1
    (saved,) = ui["images"]
    assert saved["type"] == "temp"
    shown = Image.open(
        Path(folder_paths.get_temp_directory(), saved["subfolder"], saved["filename"])
    )
    assert np.abs(np.asarray(shown) / 255 - image[0].numpy()).max() < 0.01
    assert DNOHistoryPlot.GET_NODE_INFO_V1()["output_node"] is True


def test_the_plot_leaves_its_numbers_for_programs():
    _, ui = execute(DNOHistoryPlot, history=climb(30, batch=3), **PLOT)
    (record,) = ui["dno"]
    assert record == pytest.approx(
        {
            "reward_start": -0.4,
            "reward_best": -0.4 + 0.3 * 28 / 30,
            "probability_start": 0.8,
            "probability_best": 0.8 * math.exp(-28 / 30),
            "iterations": 30,
            "seconds": 46.5,
            "best_step": 28.0,
        }
    )
    assert all(type(value) in (int, float) for value in record.values())


def test_numbers_that_are_not_known_are_left_out():
    assert "probability_best" not in numbers(climb(indicators=False))
    assert "P(z)" not in summary(climb(indicators=False))
    history = climb(3)
    first = history.records[0]
    nan = {"P(z)": torch.tensor([math.nan])}
    history.records[0] = dataclasses.replace(first, indicators=first.indicators | nan)
    assert "probability_start" not in numbers(history)
    assert "P(z) unknown → 0.573" in summary(history)
    execute(DNOHistoryPlot, history=history, **PLOT)


def test_the_text_says_what_was_reached_and_why_it_stopped():
    history = climb(30)
    _, ui = execute(DNOHistoryPlot, history=history, **PLOT)
    assert ui["text"] == [
        "Reward -0.5 → -0.22, best at iteration 28 of 30, P(z) 0.8 → 0.315, 46 s. "
        "All iterations done."
    ]
    history.stop_reason = "no better for 2 iterations"
    assert summary(history).endswith(" Stopped: no better for 2 iterations.")
    history.stop_reason = "The latent is not finite at iteration 31."
    assert summary(history).endswith(" Stopped: The latent is not finite at iteration 31.")


def test_the_text_of_a_batch_gives_means_and_the_range_of_the_best():
    history = climb(10, batch=2)
    history.best.step[1] = 10
    assert summary(history).startswith(
        "Mean reward of 2 images -0.45 → -0.21, best at iteration 8 to 10 of 10, P(z) 0.8 → 0.399, "
    )


def test_the_data_are_the_history_in_full():
    history = climb(4, batch=2, terms=("drag",))
    history.records[1].terms["drag"][1] = math.nan
    ((text,), (start,), (best,)), ui = execute(DNOHistoryData, history=history)
    told = json.loads(text)
    assert ui["dno_history"] == [told] and told["terms"]["drag"][1][1] is None
    assert told["step"] == [0, 1, 2, 3, 4] and told["seconds"][-1] == history.records[-1].seconds
    assert told["best_step"] == history.best.step.tolist()
    for place, record in enumerate(history.records):
        assert told["reward"][place] == record.reward.tolist()
        assert told["indicators"]["P(z)"][place] == record.indicators["P(z)"].tolist()
    assert torch.equal(start, history.film.images[0].movedim(1, -1) / 255)
    assert torch.equal(best, history.best.image.movedim(1, -1))


def test_frames_are_the_pictures_in_order():
    history = climb(6, batch=2)
    ((frames,),), ui = execute(DNOHistoryFrames, history=history, **FRAMES | {"image": 1})
    assert frames.shape == (7, 24, 32, 3) and frames.dtype == torch.float32
    for step in range(7):
        expected = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(step))[1]
        torch.testing.assert_close(frames[step].movedim(-1, 0), expected, atol=0.51 / 255, rtol=0)
    assert ui["text"] == ["7 of 7 pictures: iterations 0 to 6."]


@pytest.mark.parametrize(
    ("steps", "every", "maximum", "expected"),
    [
        (range(8), 3, 99, [0, 3, 6, 7]),
        (range(7), 3, 99, [0, 3, 6]),
        (range(0, 41, 4), 6, 99, [0, 8, 12, 20, 24, 32, 36, 40]),
        (range(101), 1, 5, [0, 25, 50, 75, 100]),
        (range(101), 1, 2, [0, 100]),
        (range(101), 1, 1, [100]),
        (range(3), 100, 9, [0, 2]),
        ([0], 5, 5, [0]),
    ],
)
def test_frames_are_chosen_evenly_with_first_and_last(steps, every, maximum, expected):
    assert chosen(list(steps), every, maximum) == expected


def test_frames_say_when_the_film_was_thinned():
    film = Film(limit=4 * 3 * 24 * 32)
    ((frames,),), ui = execute(DNOHistoryFrames, history=climb(20, film=film), **FRAMES)
    assert len(frames) == 3 and film.stride == 8
    assert ui["text"] == [
        "3 of 21 pictures: iterations 0 to 16. "
        "To save memory, one picture in 8 iterations was kept."
    ]


def test_a_caption_changes_the_lower_left_corner_alone():
    history = climb(6)
    ((plain,),), _ = execute(DNOHistoryFrames, history=history, **FRAMES)
    ((written,),), _ = execute(DNOHistoryFrames, history=history, **FRAMES | {"caption": True})
    changed = (plain != written).any(dim=-1)
    assert changed.flatten(1).any(dim=1).all()
    assert not changed[:, :4].any()  # 24 rows high: letters of ten pixels fit below
    assert (written[0] != written[6]).any()


def test_an_image_that_is_not_there_is_explained():
    with pytest.raises(ValueError, match="^The history holds images 0 to 1: there is no image 2"):
        execute(DNOHistoryFrames, history=climb(2, batch=2), **FRAMES | {"image": 2})
    with pytest.raises(ValueError, match="^The history holds one image, number 0: there is no"):
        execute(DNOHistoryFrames, history=climb(2), **FRAMES | {"image": 1})


def test_scores_come_as_table_list_and_best():
    image = levels(0.2, 0.9, 0.5)
    outputs, ui = execute(DNOScoreImages, image=image, reward=REWARD)
    (text,), (index,), (best,), (picture,), scores = outputs
    expected = [2 * (level - 1) + 0.5 * (1 - level) for level in (0.2, 0.9, 0.5)]
    assert scores == pytest.approx(expected, abs=1e-6)
    assert (type(index), type(best)) == (int, float)
    assert index == 1 and best == scores[1]
    assert torch.equal(picture, image[1:2])
    assert text.splitlines() == [
        "picture | reward | brightness | darkness",
        "0       | -1.2   | -0.8       | 0.8",
        "1 *     | -0.15  | -0.1       | 0.1",
        "2       | -0.75  | -0.5       | 0.5",
    ]
    (told,) = ui["dno_scores"]  # in full, for programs
    assert told["scores"] == scores and ui["text"] == [text]
    assert told["terms"]["darkness"] == pytest.approx([0.8, 0.1, 0.5], abs=1e-6)


def test_one_picture_needs_no_star_and_alpha_is_ignored():
    image = torch.cat([levels(0.5), torch.zeros(1, 6, 8, 1)], dim=-1)
    ((text,), _, _, (picture,), _), _ = execute(DNOScoreImages, image=image, reward=REWARD)
    assert text.splitlines()[1] == "0       | -0.75  | -0.5       | 0.5"
    assert torch.equal(picture, image)


@dataclasses.dataclass(frozen=True)
class Rule(Reward):
    """A reward without a gradient, scoring by a plain function of the picture."""

    rule: object
    differentiable: bool = False

    def __call__(self, image):
        assert not torch.is_grad_enabled()
        assert not torch.is_inference_mode_enabled() and not image.is_inference()
        return self.rule(image)


def test_rewards_without_a_gradient_score_too():
    count = {"count": Weighted(1.0, Rule(lambda image: (image > 0.4).float().sum(dim=(1, 2, 3))))}
    (_, (index,), _, _, scores), _ = execute(DNOScoreImages, image=levels(0.2, 0.9), reward=count)
    assert (index, scores) == (1, [0.0, 144.0])


def test_scoring_keeps_no_graph_even_where_gradients_are_on():
    rule = Rule(lambda image: image.mean(dim=(1, 2, 3)))
    with torch.enable_grad():
        DNOScoreImages.execute(levels(0.2), {"mean": Weighted(1.0, rule)})


def test_a_picture_is_scored_by_itself():
    seen = []
    rule = Rule(lambda image: (seen.append(tuple(image.shape)), image.mean(dim=(1, 2, 3)))[1])
    execute(DNOScoreImages, image=levels(0.1, 0.2), reward={"mean": Weighted(1.0, rule)})
    assert seen == [(1, 3, 6, 8)] * 2


def fail(error):
    def rule(image):
        raise error

    return {"rule": Weighted(1.0, Rule(rule))}


def test_what_goes_wrong_is_told_in_a_sentence():
    image = levels(0.1)
    with pytest.raises(TermError, match="^The reward 'rule' failed: no such font$"):
        execute(DNOScoreImages, image=image, reward=fail(RuntimeError("no such font")))
    nan = {"rule": Weighted(1.0, Rule(lambda image: image.mean(dim=(1, 2, 3)) / 0 * 0))}
    with pytest.raises(ValueError, match="^The reward 'rule' gave nan for picture 0"):
        execute(DNOScoreImages, image=image, reward=nan)
    for wrong in (None, {}, "brightness"):
        with pytest.raises(ValueError, match="^The reward input is not a DNO reward"):
            execute(DNOScoreImages, image=image, reward=wrong)
    with pytest.raises(ValueError, match="^The image input is empty"):
        execute(DNOScoreImages, image=image[:0], reward=REWARD)


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_picture_that_is_not_finite_is_never_the_best(number):
    image = levels(0.1, 0.2, 0.9)
    image[0] = number
    blind = {"blind": Weighted(1.0, Rule(lambda image: 9 - image.nan_to_num(-9).mean((1, 2, 3))))}
    outputs, _ = execute(DNOScoreImages, image=image, reward=blind)
    (text,), (index,), (best,), (picture,), scores = outputs
    assert index == 1 and best == scores[1] and torch.equal(picture, image[1:2])
    assert math.isnan(scores[0]) and text.splitlines()[-1].startswith("Picture 0 of the image")
    with pytest.raises(ValueError, match="^Picture 0 of the image input: .* VAE overflowed"):
        execute(DNOScoreImages, image=image[:1], reward=blind)


def test_an_interrupt_inside_a_reward_stays_one():
    stop = management.InterruptProcessingException()
    with pytest.raises(management.InterruptProcessingException):
        execute(DNOScoreImages, image=levels(0.1), reward=fail(stop))


def test_a_real_run_is_plotted_and_its_frames_score_what_the_history_says():
    reward = {"brightness": Weighted(1.0, Brightness(1.0))}
    with torch.inference_mode():
        model, vae = tiny.unet(), tiny.vae()
        conditions = tiny.conditioning(1), tiny.conditioning(2)
        latent = {"samples": torch.zeros(2, 4, 8, 8)}
    outputs, _ = execute(
        DNOSampler, model=model, positive=conditions[0], negative=conditions[1],
        latent_image=latent, vae=vae, reward=reward, seed=5, steps=2, cfg=1.0,
        sampler_name="euler", scheduler="normal", denoise=1.0, iterations=3, learning_rate=0.03,
    )  # fmt: skip
    (history,) = outputs[1]
    _, ui = execute(DNOHistoryPlot, history=history, **PLOT)
    assert ui["dno"][0]["iterations"] == 3 and 0 <= ui["dno"][0]["probability_best"] <= 1
    ((frames,),), _ = execute(DNOHistoryFrames, history=history, **FRAMES | {"image": 1})
    (*_, scores), _ = execute(DNOScoreImages, image=frames, reward=reward)
    recorded = [float(record.reward[1]) for record in history.records]
    assert scores == pytest.approx(recorded, abs=1 / 255)


def test_the_server_shows_scores_and_hands_the_list_on(server):
    grey = {"width": 16, "height": 16, "batch_size": 2, "color": 0x808080}
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": grey},
        "2": {"class_type": "DNOBrightnessReward", "inputs": {"target": 1.0, "weight": 1.0}},
        "3": {"class_type": "DNOScoreImages", "inputs": {"image": ["1", 0], "reward": ["2", 0]}},
        "4": {"class_type": "PreviewAny", "inputs": {"source": ["3", 4]}},
    }
    outputs = server.wait(server.submit(prompt), timeout=120)["outputs"]
    assert outputs["3"]["text"][0].splitlines()[0] == "picture | reward | brightness"
    assert [float(text) for text in outputs["4"]["text"]] == pytest.approx([-127 / 255] * 2)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_every_input_and_output_has_a_tooltip(node):
    made = node.GET_SCHEMA()
    assert made.node_id == node.__name__ and made.description
    assert all(each.tooltip for each in [*made.inputs, *made.outputs])
    assert [each.id for each in made.inputs] == list(inspect.signature(node.execute).parameters)


@pytest.mark.parametrize(
    "node", [DNOSampler, DNOSamplerCustom, *OPTIONS, *NODES], ids=lambda node: node.__name__
)
def test_the_help_page_names_the_inputs_and_outputs_that_there_are(node):
    made = node.GET_SCHEMA()
    page = (DOCS / f"{made.node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {made.display_name}\n")
    tables = dict(re.findall(r"^## (Inputs|Outputs?)\n(.*?)(?=^## |\Z)", page, re.M | re.S))
    inputs = re.findall(r"^\| `(\w+)`", tables["Inputs"], re.M) if made.inputs else []
    assert inputs == [each.id for each in made.inputs]
    listed = tables["Outputs"] if "Outputs" in tables else tables["Output"]
    assert re.findall(r"^(?:\| |- |)`(\w+)`", listed, re.M) == [
        each.display_name for each in made.outputs
    ]
    assert "## Example" in page and "arXiv" in page

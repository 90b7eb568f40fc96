"""Learned rewards on a trained model: the DNO Sampler and the demo's CLIP, as in a workflow.

The classifier, which no reward sees, says whether what was asked for is in the picture.
"""

from __future__ import annotations

import folder_paths
import nodes
import pytest
import torch

from ComfyUI_DNO.dno.history import History
from ComfyUI_DNO.nodes.regularizers import DNONoRegularizer
from ComfyUI_DNO.nodes.reward_models import DNOLoadRewardModel
from ComfyUI_DNO.nodes.rewards import NODES
from ComfyUI_DNO.nodes.sampler import DNOSampler
from demo.classifier import Classifier
from demo.vocabulary import BACKGROUNDS

STEPS, ITERATIONS = 6, 10
NODE = {node.GET_SCHEMA().node_id: node for node in NODES}


@pytest.fixture(scope="module")
def reward_model(demo_clip):
    """What Load Reward Model gives for the file of the demo's CLIP."""
    folder_paths.add_model_folder_path("reward_models", str(demo_clip.parent))
    assert demo_clip.name in DNOLoadRewardModel.GET_SCHEMA().inputs[0].options
    with torch.inference_mode():
        (network,) = DNOLoadRewardModel.execute(demo_clip.name).result
    yield network
    folder_paths.get_folder_paths("reward_models").remove(str(demo_clip.parent))


@pytest.fixture(scope="module")
def align(demo_model):
    """(prompt, seed, reward) -> the history of the DNO Sampler's climb with two images."""
    model, clip, vae = demo_model

    def climb(text: str, seed: int, reward, iterations: int = ITERATIONS) -> History:
        with torch.inference_mode():
            encode = nodes.CLIPTextEncode().encode
            (positive,), (negative,) = encode(clip, text), encode(clip, "")
            (latent,) = nodes.EmptyLatentImage().generate(128, 128, 2)
            (free,) = DNONoRegularizer.execute().result
            return DNOSampler.execute(
                model, positive, negative, latent, vae, reward, seed,
                steps=STEPS, cfg=3.0, sampler_name="euler_ancestral", scheduler="simple",
                denoise=1.0, iterations=iterations, learning_rate=0.1, regularizer=free,
            )[1]  # fmt: skip

    return climb


@pytest.fixture(scope="module")
def plain(demo_model):
    """(prompt, seed) -> KSampler's picture (1, H, W, 3)."""
    model, clip, vae = demo_model

    @torch.inference_mode()
    def draw(text: str, seed: int) -> torch.Tensor:
        encode = nodes.CLIPTextEncode().encode
        (positive,), (negative,) = encode(clip, text), encode(clip, "")
        (latent,) = nodes.EmptyLatentImage().generate(128, 128, 1)
        (sampled,) = nodes.KSampler().sample(
            model, seed, 8, 3.0, "euler", "simple", positive, negative, latent
        )
        return nodes.VAEDecode().decode(vae, sampled)[0]

    return draw


@pytest.fixture(scope="module")
def judge():
    return Classifier.load()


def pictures(history: History) -> tuple[torch.Tensor, torch.Tensor]:
    """(2, 3, H, W) in [0, 1] each: KSampler's pictures, and those that were found."""
    return history.film.images[0].float() / 255, history.best.image.float().cpu()


def reward_of(name: str, **inputs):
    """What a reward's node gives."""
    with torch.inference_mode():
        return NODE[f"DNO{name}Reward"].execute(weight=1.0, **inputs).result[0]


def gain(history: History) -> torch.Tensor:
    return history.best.reward - history.records[0].reward


def test_text_similarity_brings_what_the_text_says(align, reward_model, judge):
    """The prompt leaves the background open; both pictures come closer, and one gets all of it.

    Which one depends on the last bits, and so on ComfyUI's version; it is the one that gains most.
    """
    wanted = "a star on a green background"
    reward = reward_of("CLIPTextSimilarity", model=reward_model, prompt=wanted)
    history = align("a star", 7, reward)
    assert (gain(history) > 0.01).all()
    assert gain(history).max() > 0.15
    before, after = (judge.backgrounds(p)[:, BACKGROUNDS.index("green")] for p in pictures(history))
    assert before.exp().max() < 0.01
    assert after[gain(history).argmax()].exp() > 0.9
    assert (judge.recognised(pictures(history)[1], "star") > 0.5).all()


def test_image_similarity_comes_close_to_a_reference(align, plain, reward_model, judge):
    reference = plain("a cat on a black background", 3)
    reward = reward_of("ImageSimilarity", encoder=reward_model, reference=reference)
    history = align("a cat", 5, reward)
    assert (gain(history) > 0.01).all()
    assert history.best.reward.max() > 0.95
    before, after = (judge.backgrounds(p)[:, BACKGROUNDS.index("black")] for p in pictures(history))
    assert before.exp().max() < 0.01
    assert after.exp().max() > 0.9
    assert (judge.recognised(pictures(history)[1], "cat") > 0.5).all()

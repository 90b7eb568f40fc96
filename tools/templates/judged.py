"""Templates with a reward model: beauty, the prompt, a style, several judges."""

from __future__ import annotations

from .models import SD15, SDXL, TURBO, VISION
from .page import WIDE, Page
from .tone import BLURRY


def prettier(info) -> Page:
    page = Page(info, SDXL)
    file = "laion-aesthetic.safetensors"
    judge = page.judge(0, 420, file, "LAION aesthetic v2")
    page.load(0)
    page.advice(0, 10, PRETTIER, 350)
    beauty = page.put(1, 420, "DNOAestheticReward", model=judge)
    asked = page.words(2, 130, "a lighthouse on a cliff in the evening", "text, watermark")
    reward = page.below(page.last, "DNOCutoutsReward", reward=beauty["reward"])
    sampler = page.sampler(3, 1, **asked, reward=reward["reward"])
    page.pictures(4, sampler["latent"], "prettier")
    return page


PRETTIER = (
    "1. Press **Run**: SDXL's picture, more beautiful in the eyes of LAION's aesthetic predictor. "
    "*Cutouts* keeps out patterns that please the predictor alone.\n"
    "2. It needs laion-aesthetic.safetensors (1.2 GB) in *models/reward_models*: **Download Reward "
    "Model** with *LAION aesthetic v2* puts it there.\n"
    "3. Short of memory? Take 768 pixels, or connect *DNO Options* with memory **least**."
)


def closer(info) -> Page:
    page = Page(info, SD15)
    judge = page.judge(0, 420, "clip-vit-large-patch14", "CLIP ViT-L/14")
    prompt = "a red book and a blue cup on a wooden table"
    words = page.put(0, 560, "PrimitiveStringMultiline", title="Prompt for both", value=prompt)
    page.load(0)
    page.advice(0, 10, CLOSER, 350)
    asked = page.words(1, 130, words["STRING"], BLURRY)
    more = {"model": judge, "prompt": words["STRING"], "weight": 20.0}
    reward = page.below(page.last, "DNOCLIPTextSimilarityReward", **more)
    sampler = page.sampler(2, 7, **asked, reward=reward["reward"])
    page.pictures(3, sampler["latent"], "closer_to_the_prompt")
    return page


CLOSER = (
    "1. Press **Run**: while the picture is drawn, CLIP compares it with the prompt, and the noise "
    "is turned towards what it says.\n"
    "2. It needs clip-vit-large-patch14 (1.7 GB) in *models/reward_models*: **Download Reward "
    "Model** with *CLIP ViT-L/14* puts it there. *PickScore* and *HPSv2* judge by taste as well.\n"
    "3. The reward may be asked for more than the model: type another text into it."
)


def style(info) -> Page:
    page = Page(info, SD15)
    encoder = page.vision(0, 330, VISION)
    y = page.next(page.nodes[-1])
    picture = page.put(0, y, "LoadImage", title="A picture in that style", image="example.png")
    picture.size = (WIDE, 340)
    page.load(0)
    page.advice(0, 10, STYLE, 260)
    asked = page.words(1, 130, "a cat on a window sill", BLURRY)
    more = {"encoder": encoder, "reference": picture["IMAGE"], "weight": 20.0}
    reward = page.below(page.last, "DNOStyleSimilarityReward", **more)
    sampler = page.sampler(2, 3, **asked, reward=reward["reward"])
    page.pictures(3, sampler["latent"], "style")
    return page


STYLE = (
    "1. Choose a picture of yours in *Load Image* and press **Run**: your prompt, in the style of "
    "that picture, on any model.\n"
    "2. As encoder take any CLIP Vision; for what a picture *shows* put *Image Similarity* in the "
    "reward's place.\n"
    "3. Too tame? Set *effort* to **thorough**."
)


def judges(info) -> Page:
    page = Page(info, TURBO)
    page.load(0)
    page.advice(0, 10, SEVERAL, 340)
    prompt = "a red dog and a green cat"
    words = page.put(0, 404, "PrimitiveStringMultiline", title="Prompt for all", value=prompt)
    text = words["STRING"]
    named = ("HPSv2.1", "HPSv2.1.safetensors"), ("ImageReward", "ImageReward.safetensors")
    judged = []
    for title, file in (*named, ("PickScore", "PickScore_v1")):
        judged.append(page.judge(0, page.next(page.nodes[-1]), file, title))
    hps, taste, pick = judged
    clip = page.loader["CLIP"]
    wanted = page.put(1, 130, "CLIPTextEncode", title="Prompt", clip=clip, text=text)
    one = page.below(wanted, "DNOHPSv2Reward", model=hps, prompt=text, weight=5.0)
    two = page.below(one, "DNOImageRewardReward", model=taste, prompt=text)
    three = page.below(two, "DNOPickScoreReward", model=pick, prompt=text, weight=0.05)
    rewards = {"reward_1": one["reward"], "reward_2": two["reward"], "reward_3": three["reward"]}
    reward = page.put(2, 250, "DNOCombineRewards", **rewards)
    side = page.model.size
    size = page.below(reward, page.model.latent, title="Size", width=side, height=side)
    way = page.below(size, "DNOPreset", title="ReNO's way", preset="ReNO")
    told = {name: wanted["CONDITIONING"] for name in ("positive", "negative")}
    more = {"latent_image": size["LATENT"], "reward": reward["reward"], "options": way["options"]}
    sampler = page.sampler(3, 0, **told, **more)
    page.pictures(4, sampler["latent"], "several_judges", below="")
    return page


SEVERAL = (
    "1. Press **Run**: three judges of taste together, after ReNO (arXiv 2406.04312), with its "
    "optimizer and regularizer, in one step of SDXL-Turbo.\n"
    "2. It needs HPSv2.1, ImageReward and PickScore in *models/reward_models*: **Download Reward "
    "Model** fetches each by its name (10 GB in all). ReNO has a fourth: *CLIP Text Similarity* "
    "with CLIP ViT-H/14 and weight 1 goes on *reward_4*.\n"
    "3. Too large? Take one judge out; at cfg 1 the negative prompt does not count."
)

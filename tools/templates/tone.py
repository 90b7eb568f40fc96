"""Templates that need no reward model: light, colours, places, files."""

from __future__ import annotations

from .models import FLUX, SD15, SDXL, SMALL, SMALL_FILES
from .page import AIR, ROOF, WIDE, Page

BLURRY = "blurry, text, watermark"


def darker(info) -> Page:
    page = Page(info, SD15)
    page.load(0)
    page.advice(0, 10, DARKER, 330)
    asked = page.words(1, 130, "a lighthouse on a cliff by the sea, photograph", BLURRY)
    reward = page.below(page.last, "DNODarknessReward")
    sampler = page.sampler(2, 7, **asked, reward=reward["reward"])
    page.pictures(3, sampler["latent"], "darker")
    return page


DARKER = (
    "1. Press **Run**. The *DNO Sampler* stands where KSampler stood: same inputs, same seed. It "
    "draws the picture six times and turns its noise so that the reward likes it more.\n"
    "2. The reward is *Darkness*. Put another one in its place: double-click the canvas and search "
    "for **reward**: brightness, warmth, tiling, palette ...\n"
    "3. *effort* says how long it may take: **one pass** is as quick as KSampler, **thorough** "
    "goes further."
)


def colours(info) -> Page:
    page = Page(info, SDXL)
    picture = page.put(0, 330, "LoadImage", title="A picture with the colours", image="example.png")
    picture.size = (WIDE, 340)
    page.load(0)
    page.advice(0, 10, COLOURS, 260)
    asked = page.words(1, 130, "a still life of fruit and flowers on a table", BLURRY)
    reward = page.below(page.last, "DNOPaletteReward", reference=picture["IMAGE"], weight=2.0)
    sampler = page.sampler(2, 3, **asked, reward=reward["reward"])
    page.pictures(3, sampler["latent"], "colours")
    return page


COLOURS = (
    "1. Choose a picture of yours in *Load Image* and press **Run**: your prompt in the colours of "
    "that picture.\n"
    "2. Only its colours count, not what it shows; *lightness* 0 takes over the hues alone.\n"
    "3. Too tame? Set *effort* to **thorough**."
)


def mixture(info) -> Page:
    page = Page(info, SD15)
    colour = page.put(0, 330, "DNOColourReward", colour="#ff8800", title="More orange")
    contrast = page.below(colour, "DNOContrastReward", title="More contrast")
    page.load(0)
    page.advice(0, 10, MIXTURE, 260)
    asked = page.words(1, 130, "a castle on a hill, oil painting", BLURRY)
    both = {"reward_1": colour["reward"], "reward_2": contrast["reward"], "weight_2": 0.5}
    reward = page.below(page.last, "DNOCombineRewards", **both)
    sampler = page.sampler(2, 5, **asked, reward=reward["reward"])
    page.pictures(3, sampler["latent"], "colour_and_contrast", below="plot")
    return page


MIXTURE = (
    "1. *Combine Rewards* adds several rewards, each with a weight: here a colour, and contrast at "
    "half its weight. Press **Run**.\n"
    "2. Change *colour* to any #rrggbb, or the weights.\n"
    "3. The plot shows each reward by its name, so you see which of them moved."
)


def places(info) -> Page:
    page = Page(info, SD15)
    page.advice(0, ROOF, PLACES, 300)
    dark = page.put(0, 220, "SolidMask", title="All of it: black", value=0.0, width=512, height=512)
    light = page.below(
        dark, "SolidMask", title="The middle: white", value=1.0, width=256, height=256
    )
    both = {"destination": dark["MASK"], "source": light["MASK"], "operation": "add"}
    area = page.put(1, 220, "MaskComposite", title="Mask", x=128, y=128, **both)
    bright = page.below(area, "DNOBrightnessReward")
    dim = page.below(bright, "DNODarknessReward")
    page.load(2)
    more = {"reward": bright["reward"], "area": area["MASK"]}
    inside = page.put(2, 220, "DNOMaskReward", title="Inside the mask", **more)
    more = {"reward": dim["reward"], "area": area["MASK"], "invert": True}
    outside = page.below(inside, "DNOMaskReward", title="Outside the mask", **more)
    asked = page.words(3, 130, "a snowman in a garden, photograph", BLURRY)
    rewards = {"reward_1": inside["reward"], "reward_2": outside["reward"]}
    reward = page.below(page.last, "DNOCombineRewards", **rewards)
    sampler = page.sampler(4, 3, **asked, reward=reward["reward"])
    page.pictures(5, sampler["latent"], "light_in_one_place", below="")
    return page


PLACES = (
    "1. Press **Run**: the middle of the picture becomes brighter, the rest darker.\n"
    "2. For a place of your own put *Load Image* instead of the three mask nodes, right-click it, "
    "**Open in MaskEditor**, and paint where the light shall fall.\n"
    "3. *Mask Reward* keeps any reward to one part of the picture."
)


def small_file(info) -> Page:
    page = Page(info, SD15)
    page.load(0)
    page.advice(0, 10, CALM, 300)
    asked = page.words(1, 130, "a red fox in the snow, flat illustration", BLURRY)
    reward = page.below(page.last, "DNOJPEGCompressibilityReward")
    sampler = page.sampler(2, 3, **asked, reward=reward["reward"])
    page.pictures(3, sampler["latent"], "small_file", below="plot")
    return page


CALM = (
    "1. Press **Run**: a picture that makes a smaller JPEG, which is a calmer one. The size of a "
    "file has no gradient, so the sampler tries neighbouring noise and keeps what helps.\n"
    "2. The plot shows minus the size in kB. *JPEG Incompressibility* in the reward's place asks "
    "for a busy picture.\n"
    "3. *DNO Estimated Gradient*, on the *gradient* input, sets how it tries."
)


def side_by_side(info) -> Page:
    page = Page(info, SD15)
    page.load(0)
    page.advice(0, 10, SIDES, 260)
    asked = page.words(1, 130, "a rocket above a city, children's book", BLURRY)
    reward = page.below(page.last, "DNOBrightnessReward", target=0.85)
    sampler = page.sampler(2, 5, **asked, reward=reward["reward"])
    x, y = page.x(3) + 40, 260
    frames = page.add("DNOHistoryFrames", (x, y), (WIDE, 0), history=sampler["history"])
    decode = page.add(
        *("VAEDecode", (x, ROOF), (WIDE, 0)),
        **{"title": "After", "samples": sampler["latent"], "vae": page.loader["VAE"]},
    )
    x += WIDE + AIR
    both = {"image1": sampler["before"], "image2": decode["IMAGE"], "spacing_width": 4}
    stitch = page.add("ImageStitch", (x, 0), (WIDE, 0), title="Side by side", **both)
    film = {"images": frames["frames"], "filename_prefix": "dno/film", "fps": 2.0}
    place = (x, page.next(stitch))
    page.add("SaveAnimatedWEBP", place, (WIDE, 400), title="Film", lossless=False, **film)
    more = {"images": stitch["IMAGE"], "filename_prefix": "dno/side_by_side"}
    page.add("SaveImage", (x + WIDE + AIR, 0), (440, 300), title="Before and after", **more)
    return page


SIDES = (
    "1. Press **Run**: the picture before and the picture after are saved side by side, and a film "
    "of every try below.\n"
    "2. *Brightness* pulls the picture towards a target: 0 is black, 1 is white.\n"
    "3. Connect *DNO History Frames* to Preview Image for single pictures."
)


def any_sampler(info) -> Page:
    page = Page(info, FLUX)
    loader, model = page.load(0), FLUX
    page.advice(0, 10, ANY, 300)
    clip, (x, y) = loader["CLIP"], (page.x(1), 400)
    wanted = page.add(
        *("CLIPTextEncode", (x, y), (WIDE, 0)),
        **{"title": "Prompt", "clip": clip, "text": "a small boat on a lake between mountains"},
    )
    unwanted = page.below(wanted, "CLIPTextEncode", title="Negative prompt", clip=clip, text="")
    select = page.below(unwanted, "KSamplerSelect", title="Any sampler", sampler_name=model.sampler)
    reward = page.below(select, "DNOWarmthReward")
    words = {"positive": wanted["CONDITIONING"], "negative": unwanted["CONDITIONING"]}
    guider = page.put(
        2, 0, "CFGGuider", title="Any guider", model=loader["MODEL"], cfg=model.cfg, **words
    )
    more = {"scheduler": model.scheduler, "steps": model.steps, "model": loader["MODEL"]}
    sigmas = page.below(guider, "BasicScheduler", title="Any sigmas", **more)
    more = {"sampler": select["SAMPLER"], "vae": loader["VAE"], "reward": reward["reward"]}
    climbs = page.below(sigmas, "DNOSamplerCustom", **more)
    noise = page.below(climbs, "RandomNoise", noise_seed=3)
    size = page.below(noise, model.latent, title="Size", width=model.size, height=model.size)
    more = {"noise": noise["NOISE"], "guider": guider["GUIDER"], "sampler": climbs["sampler"]}
    more |= {"sigmas": sigmas["SIGMAS"], "latent_image": size["LATENT"]}
    sampled = page.add("SamplerCustomAdvanced", (page.x(3), 0), (WIDE, 420), **more)
    page.pictures(4, sampled["output"], "any_sampler", below="")
    return page


ANY = (
    "1. *DNO Sampler (custom)* makes a SAMPLER of a SAMPLER: put it between any sampler and "
    "*SamplerCustomAdvanced*. Guider, noise and sigmas stay as they are.\n"
    "2. Here with Flux schnell, four steps: press **Run**.\n"
    "3. *Warmth* above 0 asks for warm light, below 0 for cool light."
)


def small_decoder(info) -> Page:
    page = Page(info, SDXL)
    page.load(0)
    page.advice(0, 10, DECODERS, 350)
    asked = page.words(1, 130, "a hut in the mountains in the evening", BLURRY)
    reward = page.below(page.last, "DNOSaturationReward")
    files = {"vae_name": SMALL, "models": SMALL_FILES}
    small = page.below(reward, "VAELoader", title="Small decoder", **files)
    sampler = page.sampler(2, 5, **asked, reward=reward["reward"], vae=small["VAE"])
    page.pictures(3, sampler["latent"], "small_decoder", below="plot")
    return page


DECODERS = (
    "1. Press **Run**: it climbs what a small decoder shows, TAESD, in an eighth of the memory of "
    "SDXL's own, which at last makes the picture in *Decode*.\n"
    "2. It needs taesdxl_decoder.safetensors and taesdxl_encoder.safetensors (5 MB each) in "
    "*models/vae_approx*; *Load VAE* then lists **taesdxl**. SD 1.5 has taesd, SD 3 taesd3, Flux "
    "taef1.\n"
    "3. Both decoders show nearly the same: the plot has the reward of what the small one shows."
)

"""The models that the templates start on, with the addresses that ComfyUI's own templates give."""

from __future__ import annotations

from dataclasses import dataclass

HUB = "https://huggingface.co"


def listed(name: str, url: str, directory: str) -> tuple[dict[str, str], ...]:
    """What a node's `models` property says, so that ComfyUI offers a file that is missing."""
    return ({"name": name, "url": f"{HUB}/{url}", "directory": directory},)


@dataclass(frozen=True)
class Model:
    """A checkpoint and the settings that suit it. size: pixels a side."""

    file: str
    url: str
    size: int
    steps: int
    cfg: float
    sampler: str
    scheduler: str
    latent: str = "EmptyLatentImage"

    @property
    def listed(self) -> tuple[dict[str, str], ...]:
        return listed(self.file, f"{self.url}/{self.file}", "checkpoints")


SD15 = Model(
    "v1-5-pruned-emaonly-fp16.safetensors",
    "Comfy-Org/stable-diffusion-v1-5-archive/resolve/main",
    *(512, 20, 7.0, "euler_ancestral", "normal"),
)
SDXL = Model(
    "sd_xl_base_1.0.safetensors",
    "stabilityai/stable-diffusion-xl-base-1.0/resolve/main",
    *(1024, 20, 6.0, "euler_ancestral", "karras"),
)
TURBO = Model(
    "sd_xl_turbo_1.0_fp16.safetensors",
    "stabilityai/sdxl-turbo/resolve/main",
    *(512, 1, 1.0, "euler", "sgm_uniform"),
)
FLUX = Model(
    "flux1-schnell-fp8.safetensors",
    "Comfy-Org/flux1-schnell/resolve/main",
    *(1024, 4, 1.0, "euler_ancestral", "simple", "EmptySD3LatentImage"),
)
SMALL = "taesdxl"  # what Load VAE calls SDXL's small decoder, of two files
SMALL_FILES = tuple(
    each
    for name in (f"{SMALL}_decoder.safetensors", f"{SMALL}_encoder.safetensors")
    for each in listed(name, f"madebyollin/taesdxl/resolve/main/{name}", "vae_approx")
)
VISION = "clip_vision_h.safetensors"
JUDGES = {  # name for Load Reward Model, or a file of it -> what ComfyUI may offer
    VISION: listed(
        VISION,
        f"Comfy-Org/Wan_2.1_ComfyUI_repackaged/resolve/main/split_files/clip_vision/{VISION}",
        "clip_vision",
    ),
    "laion-aesthetic.safetensors": listed(
        "laion-aesthetic.safetensors",
        "RE-N-Y/laion-aesthetic/resolve/main/model.safetensors",
        "reward_models",
    ),
    "clip-vit-large-patch14": listed(
        "clip-vit-large-patch14/model.safetensors",
        "openai/clip-vit-large-patch14/resolve/main/model.safetensors",
        "reward_models",
    ),
    "HPSv2.1.safetensors": listed(
        "HPSv2.1.safetensors", "RE-N-Y/hpsv21/resolve/main/model.safetensors", "reward_models"
    ),
    "ImageReward.safetensors": listed(
        "ImageReward.safetensors",
        "RE-N-Y/ImageReward/resolve/main/model.safetensors",
        "reward_models",
    ),
    "PickScore_v1": listed(
        "PickScore_v1/model.safetensors",
        "yuvalkirstain/PickScore_v1/resolve/main/model.safetensors",
        "reward_models",
    ),
}

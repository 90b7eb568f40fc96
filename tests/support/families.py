"""Tiny random instances of the model families that ComfyUI knows, in its own model classes."""

from __future__ import annotations

import dataclasses
import importlib
from dataclasses import dataclass, field

import comfy.model_base
import comfy.model_patcher
import comfy.samplers
import comfy.supported_models
import torch

from . import family_configs as configs
from .family_configs import WIDTH
from .tiny import patcher


@dataclass(frozen=True)
class Family:
    """One family: its class in comfy.supported_models, a tiny configuration and what it is given.

    extra:     name -> shape of each further tensor of the conditioning, beside the text embedding.
    constants: what else the conditioning carries.
    params:    the dataclass that holds the configuration in ComfyUI, where there is one.
    """

    config: str
    unet: dict
    latent: tuple[int, ...]
    extra: dict[str, tuple[int, ...]] = field(default_factory=dict)
    constants: dict = field(default_factory=dict)
    params: str = ""
    width: int = WIDTH
    prediction: comfy.model_base.ModelType | None = None

    @property
    def known(self) -> bool:
        """Whether this ComfyUI has the family."""
        return hasattr(comfy.supported_models, self.config)

    def options(self) -> dict:
        """The configuration without the keys that this ComfyUI does not know."""
        if not self.params:
            return dict(self.unet)
        module, name = self.params.rsplit(".", 1)
        params = getattr(importlib.import_module(f"comfy.ldm.{module}"), name)
        names = {f.name for f in dataclasses.fields(params)} | {"image_model"}
        return {key: value for key, value in self.unet.items() if key in names}


POOLED = {"pooled_output": (1, 8)}
MASK = {"attention_mask": (1, 7)}
MT5 = {"conditioning_mt5xl": (1, 5, 24), "attention_mask_mt5xl": (1, 5)}
LLAMA = {"conditioning_llama3": (1, 2, 5, WIDTH)}
CASCADE = {"pooled_output": (1, 1, 8)}
FLUX, CHROMA = "flux.model.FluxParams", "chroma.model.ChromaParams"
RADIANCE, HUNYUAN = (
    "chroma_radiance.model.ChromaRadianceParams",
    "hunyuan_video.model.HunyuanVideoParams",
)
V = comfy.model_base.ModelType.V_PREDICTION
INPAINT = {**configs.UNET, "in_channels": 9}
SD2 = {**configs.UNET, "use_linear_in_transformer": True}
FILL = {**configs.FLUX, "in_channels": 96}
SCHNELL = {**configs.FLUX, "guidance_embed": False}
SIZE = {"width": 512, "height": 16}

FAMILIES = {
    "SD1.5": Family("SD15", configs.UNET, (4, 8, 8)),
    "SD1.5 inpaint": Family("SD15", INPAINT, (4, 8, 8)),
    "SD2 v": Family("SD20", SD2, (4, 8, 8), prediction=V),
    "SDXL": Family("SDXL", configs.SDXL, (4, 8, 8), POOLED),
    "SD3": Family("SD3", configs.SD3, (16, 8, 8), POOLED),
    "Flux": Family("Flux", configs.FLUX, (16, 8, 8), POOLED, {"guidance": 3.5}, FLUX),
    "Flux Fill": Family("Flux", FILL, (16, 8, 8), POOLED, params=FLUX),
    "Flux schnell": Family("FluxSchnell", SCHNELL, (16, 8, 8), POOLED, params=FLUX),
    "Flux2": Family("Flux2", configs.FLUX2, (128, 4, 4), POOLED, params=FLUX),
    "Chroma": Family("Chroma", configs.CHROMA, (16, 8, 8), POOLED, params=CHROMA),
    "Chroma Radiance": Family(
        "ChromaRadiance", configs.RADIANCE, (3, 32, 32), POOLED, params=RADIANCE
    ),
    "HunyuanVideo": Family(
        "HunyuanVideo", configs.HUNYUAN_VIDEO, (16, 1, 8, 8), POOLED, params=HUNYUAN
    ),
    "HunyuanImage": Family("HunyuanImage21", configs.HUNYUAN_IMAGE, (64, 8, 8), params=HUNYUAN),
    "HunyuanDiT": Family("HunyuanDiT", configs.HUNYUAN_DIT, (4, 8, 8), {**MASK, **MT5}),
    "LTXV": Family("LTXV", configs.LTXV, (128, 1, 4, 4), MASK),
    "Wan 2.1": Family("WAN21_T2V", configs.WAN, (16, 1, 8, 8)),
    "Qwen-Image": Family("QwenImage", configs.QWEN, (16, 1, 8, 8)),
    "Lumina 2": Family("Lumina2", configs.LUMINA, (16, 8, 8)),
    "Z-Image": Family("ZImage", configs.Z_IMAGE, (16, 8, 8)),
    "PixArt": Family("PixArtAlpha", configs.PIXART, (4, 2, 64), constants=SIZE),
    "AuraFlow": Family("AuraFlow", configs.AURA, (4, 8, 8)),
    "Cosmos": Family("CosmosT2V", configs.COSMOS, (16, 1, 8, 8)),
    "Cosmos-Predict2": Family("CosmosT2IPredict2", configs.PREDICT2, (16, 1, 8, 8)),
    "HiDream": Family("HiDream", configs.HIDREAM, (16, 8, 8), {**POOLED, **LLAMA}),
    "Mochi": Family("GenmoMochi", configs.MOCHI, (12, 1, 8, 8), MASK),
    "OmniGen2": Family("Omnigen2", configs.OMNIGEN2, (16, 8, 8), MASK),
    "Stable Cascade C": Family("Stable_Cascade_C", configs.CASCADE_C, (16, 8, 8), CASCADE),
    "Stable Cascade B": Family("Stable_Cascade_B", configs.CASCADE_B, (4, 16, 16), CASCADE),
    # from newer ComfyUI
    "Anima": Family("Anima", configs.ANIMA, (16, 1, 8, 8), width=1024),
    "ERNIE-Image": Family("ErnieImage", configs.ERNIE, (128, 4, 4)),
    "JoyImage": Family("JoyImage", configs.JOY, (16, 1, 8, 8)),
    "Ideogram 4": Family("Ideogram4", configs.IDEOGRAM, (128, 4, 4)),
    "Mage-Flow": Family("MageFlow", configs.MAGE, (128, 4, 4)),
    "Lens": Family("Lens", configs.LENS, (128, 4, 4), MASK),
}


def build(family: Family, dtype=torch.float32, cast=None) -> comfy.model_patcher.ModelPatcher:
    """A random model of the family with weights of `dtype`, computing in `cast` if given."""
    config = getattr(comfy.supported_models, family.config)(family.options())
    config.unet_config.update(family.options())  # a class may insist on its real size
    config.set_inference_dtype(dtype, cast)
    if family.prediction is not None:
        config.model_type = lambda state_dict, prefix="": family.prediction
    model = config.get_model({}, device=torch.device("cpu"))
    if dtype == torch.float64:
        model.diffusion_model.double()  # what the family keeps in float32 as well
    randomise(model.diffusion_model)
    return patcher(model)


@torch.no_grad()
def randomise(module: torch.nn.Module, seed: int = 0) -> None:
    """Well-scaled random weights, those included that training starts at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim == 1 and name.endswith(("weight", "scale")):
            values = 1 + 0.1 * values  # of a norm
        elif parameter.ndim > 1 and name.endswith("weight"):
            values = values / parameter[0].numel() ** 0.5
        else:
            values = 0.2 * values
        parameter.copy_(values)
    for name, buffer in module.named_buffers():
        if name.endswith("pos_embed"):  # loaded, not computed
            buffer.copy_(0.2 * torch.randn(buffer.shape, generator=generator))


def conditioning(family: Family, seed: int, **more) -> list:
    """A random prompt of the kind that the family takes."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.randn(1, 7, family.width, generator=generator)
    extra = {
        name: torch.ones(shape, dtype=torch.int)
        if "mask" in name
        else torch.randn(shape, generator=generator)
        for name, shape in family.extra.items()
    }
    return [[text, {**extra, **family.constants, **more}]]


def guider(family: Family, model, cfg: float = 3.0, **more) -> comfy.samplers.CFGGuider:
    """A guider with a random positive and a random negative prompt."""
    made = comfy.samplers.CFGGuider(model)
    made.set_conds(conditioning(family, 1, **more), conditioning(family, 2, **more))
    made.set_cfg(cfg)
    return made

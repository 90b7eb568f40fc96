"""DINOv2 in transformers' layout, with or without registers."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
)

from .building import Shapes, assemble, layers
from .network import Architecture
from .preprocess import IMAGENET_MEAN, IMAGENET_STD, Preprocess
from .running import encode, recompute
from .vision import VisionEncoder, collecting

_PATCHES = "embeddings.patch_embeddings.projection.weight"
_POSITIONS = "embeddings.position_embeddings"
_REGISTERS = "embeddings.register_tokens"
_GATED = "encoder.layer.0.mlp.weights_in.weight"


class DINOv2(VisionEncoder, Architecture):
    """A vision transformer trained on pictures alone (arXiv 2304.07193; registers: 2309.16588)."""

    title = "DINOv2"
    family = "dinov2"

    def __init__(self, network: Dinov2Model | Dinov2WithRegistersModel) -> None:
        super().__init__()
        self.network = network
        self.preprocess = Preprocess(224, "crop", IMAGENET_MEAN, IMAGENET_STD, 256, floor=True)
        recompute(network.encoder.layer)

    @classmethod
    def matches(cls, shapes: Shapes) -> bool:
        """Whether these are its weights."""
        return {_PATCHES, _POSITIONS, "encoder.layer.0.layer_scale1.lambda1"} <= shapes.keys()

    @classmethod
    def build(cls, state: Mapping[str, Tensor], config: Mapping | None = None) -> DINOv2:
        """The network with these weights; without a config its sizes are those of the weights."""
        registers = _REGISTERS in state
        kind = Dinov2WithRegistersConfig if registers else Dinov2Config
        hf_config = kind.from_dict(dict(config)) if config else kind(**_sizes(state))
        make = Dinov2WithRegistersModel if registers else Dinov2Model
        return cls(assemble(lambda: make(hf_config), _every_name(state), cls.title))

    @property
    def width(self) -> int:
        """D, the length of an embedding."""
        return self.network.config.hidden_size

    def see(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Preprocessed (B,3,S,S) -> the embedding (B,D), and the middle layers' patches (B,N,C)."""
        first = 1 + getattr(self.network.config, "num_register_tokens", 0)

        def compute(given: Tensor) -> tuple[Tensor, ...]:
            with collecting(self.network.encoder.layer) as middle:
                pooled = self.network(pixel_values=given).pooler_output
            return pooled, *(tokens[:, first:] for tokens in middle)

        return encode(self.network, pixels, compute)


def _sizes(state: Mapping[str, Tensor]) -> dict[str, int | bool]:
    width, _, patch, _ = state[_PATCHES].shape
    registers = {"num_register_tokens": state[_REGISTERS].shape[1]} if _REGISTERS in state else {}
    return registers | {
        "hidden_size": width,
        "num_hidden_layers": layers(state, "encoder.layer."),
        "num_attention_heads": max(width // 64, 1),
        "patch_size": patch,
        "image_size": round((state[_POSITIONS].shape[1] - 1) ** 0.5) * patch,
        "use_swiglu_ffn": _GATED in state,
        "layer_norm_eps": 1e-6,
    }


_NEWER = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
    (".mlp.weights_out.", ".mlp.down_proj."),
)


def _every_name(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the published names, and by those of transformers 5 as well: it renames as it loads."""
    every = dict(state)
    for name, tensor in state.items():
        if ".mlp.weights_in." in name:
            for new, half in zip(("gate_proj", "up_proj"), tensor.chunk(2), strict=True):
                every[name.replace("weights_in", new)] = half
        for old, new in _NEWER:
            if old in name:
                every[name.replace(old, new)] = tensor
    return every

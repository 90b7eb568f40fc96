"""The picture autoencoder: TAESD's layout, 32 channels wide, 8 x 8 pixels to 16 numbers.

ComfyUI builds its TAESD 64 wide. The channels that are not stored are zero there, and stay zero
through every convolution and ReLU, so padding with zeros is exact.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 32
LATENT_CHANNELS = 16
HOST_WIDTH = 64
HOST_SCALE, HOST_SHIFT = 1.5305, 0.0609
"""SD3's latent format; stored as vae_scale and vae_shift, they make it the identity for us."""


class Encoder(nn.Sequential):
    """Pictures (B, 3, H, W) in [0, 1] -> latents (B, 16, H/8, W/8) of about unit variance."""

    def __init__(self, width: int = WIDTH) -> None:
        layers: list[nn.Module] = [_convolution(3, width), Residual(width)]
        for _ in range(3):
            layers.append(_convolution(width, width, stride=2, bias=False))
            layers += [Residual(width) for _ in range(3)]
        super().__init__(*layers, _convolution(width, LATENT_CHANNELS))


class Decoder(nn.Sequential):
    """Latents -> pictures; the inverse of ``Encoder``."""

    def __init__(self, width: int = WIDTH) -> None:
        layers: list[nn.Module] = [SoftClamp(), _convolution(LATENT_CHANNELS, width), nn.ReLU()]
        for _ in range(3):
            layers += [Residual(width) for _ in range(3)]
            layers += [nn.Upsample(scale_factor=2), _convolution(width, width, bias=False)]
        super().__init__(*layers, Residual(width), _convolution(width, 3))


class Residual(nn.Module):
    """Three convolutions around which the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(3):
            layers += [_convolution(width, width), nn.ReLU()]
        self.conv = nn.Sequential(*layers[:-1])

    def forward(self, features: Tensor) -> Tensor:
        return F.relu(self.conv(features) + features)


class SoftClamp(nn.Module):
    """Latents squeezed into (-3, 3)."""

    def forward(self, latent: Tensor) -> Tensor:
        return torch.tanh(latent / 3) * 3


def host_state_dict(encoder: dict[str, Tensor], decoder: dict[str, Tensor]) -> dict[str, Tensor]:
    """The autoencoder under the names, and in the sizes, that ComfyUI loads."""
    state = {"vae_scale": torch.tensor(HOST_SCALE), "vae_shift": torch.tensor(HOST_SHIFT)}
    for name, weight in encoder.items():
        state[f"taesd_encoder.{name}"] = _padded(name, weight, Encoder)
    for name, weight in decoder.items():
        state[f"taesd_decoder.{name}"] = _padded(name, weight, Decoder)
    return {f"first_stage_model.{name}": weight for name, weight in state.items()}


def _padded(name: str, weight: Tensor, network: type[nn.Sequential]) -> Tensor:
    """Zeros where ComfyUI's wider network has channels that ours lacks."""
    with torch.device("meta"):
        shape = network(HOST_WIDTH).get_parameter(name).shape
    padded = torch.zeros(shape, dtype=weight.dtype)
    padded[tuple(slice(size) for size in weight.shape)] = weight
    return padded


def _convolution(inputs: int, outputs: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)

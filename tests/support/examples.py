"""Pictures, noise and an instance of any reward, for the tests that hold for all of them."""

import dataclasses

import torch

from ComfyUI_DNO.dno.fields import Image, Mask, Model, Text, fields_of
from ComfyUI_DNO.dno.noise import Noise

from .tiny_models import tiny


def picture(batch=2, height=24, width=32, seed=0, dtype=torch.float32):
    """Smooth random colour pictures away from black and white: (B,3,H,W)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 4, 5, generator=generator, dtype=torch.float64)
    smooth = torch.nn.functional.interpolate(
        coarse, (height, width), mode="bilinear", align_corners=True
    )
    grain = torch.rand(batch, 3, height, width, generator=generator, dtype=torch.float64)
    return (0.1 + 0.65 * smooth + 0.15 * grain).to(dtype)


def mask(height=24, width=32):
    """A feathered disc off the centre: (1,H,W)."""
    y = torch.linspace(-1, 1, height)[:, None] + 0.3
    x = torch.linspace(-1, 1, width) - 0.2
    return (2 - 3 * torch.hypot(x, y)).clamp(0, 1)[None]


def kinds_of(cls) -> set[type]:
    """The classes of the networks that it needs."""
    described = [metadata for metadata, _ in fields_of(cls).values()]
    return {kind for one in described if isinstance(one, Model) for kind in one.kinds}


def build(cls, **values):
    """`cls` with its defaults, and an example for everything else that it needs."""
    examples = {}
    for name, (metadata, default) in fields_of(cls).items():
        if isinstance(metadata, Image) and default is dataclasses.MISSING:
            examples[name] = picture(2, seed=7)
        elif isinstance(metadata, Mask) and default is dataclasses.MISSING:
            examples[name] = mask()
        elif isinstance(metadata, Model) and default is dataclasses.MISSING:
            examples[name] = tiny(metadata.kinds[0].title)
        elif isinstance(metadata, Text) and default is dataclasses.MISSING:
            examples[name] = "a red fox"
    return cls(**(examples | values))


def gaussian(batch, *shape, count=1, scale=1.0, shift=0.0, seed=0, dtype=torch.float32):
    """Noise of `count` tensors (B, *shape), drawn from N(shift, scale^2)."""
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(batch, *shape, generator=generator) for _ in range(count)]
    first, *others = [(scale * draw + shift).to(dtype) for draw in draws]
    return Noise(first, others)


def gradients(regularizer, noise):
    """The gradient of the summed score with respect to each leaf."""
    return torch.autograd.grad(regularizer(noise).sum(), noise.leaves())

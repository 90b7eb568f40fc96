"""Pictures as files: how many bytes an encoder needs."""

from __future__ import annotations

from io import BytesIO

import torch
from PIL import Image
from torch import Tensor


def eight_bits(image: Tensor) -> Tensor:
    """(B,3,H,W) in [0,1] -> (B,H,W,3) uint8 on the CPU.

    >>> eight_bits(torch.full((1, 3, 1, 1), 0.5)).flatten()
    tensor([128, 128, 128], dtype=torch.uint8)
    """
    levels = (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
    return levels.movedim(1, -1).cpu().contiguous()


def kilobytes(image: Tensor, **save: object) -> Tensor:
    """(B,3,H,W) -> (B,): the size of each as a file in kB (1000 bytes); `save` is Pillow's.

    >>> kilobytes(torch.zeros(2, 3, 8, 8), format="PNG").shape
    torch.Size([2])
    """
    sizes = []
    for pixels in eight_bits(image).numpy():
        file = BytesIO()
        Image.fromarray(pixels).save(file, **save)
        sizes.append(file.tell() / 1000)
    return image.new_tensor(sizes)

"""Whether a climb through a decoder in tiles goes where one through the whole would.

    python run.py exec -- python benchmarks/tiles.py [DECODER ...]

The cosine of a reward's two gradients of one random latent of 1024 px, in the largest tiles there
are and in as many as a small card takes at 2048 px (`fits.py`). Decoders: demo, and SDXL's in its
own size with random weights; that takes over an hour of a core and 12 GB. It fails where one is
below 0.99. Writes tiles.md beside this file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from demo_runs import Demo

SIDE, LARGE, CLOSE = 1024, 2048, 0.99
REWARDS = ("Darkness", "Sharpness")
HEAD = """\
| decoder | picture | tiles | reward | cosine of the gradients |
|---|---|---|---|---|"""


def random_vae():
    """SDXL's VAE in ComfyUI, with random weights."""
    import comfy.sd
    import torch
    from decoders import _kl

    generator = torch.Generator().manual_seed(0)

    def values(name: str, weight):
        if weight.ndim < 2:
            return torch.ones_like(weight) if name.endswith("weight") else torch.zeros_like(weight)
        return torch.randn(weight.shape, generator=generator) * weight[0].numel() ** -0.5

    made = _kl().state_dict()
    return comfy.sd.VAE(sd={name: values(name, weight) for name, weight in made.items()})


def in_tiles(decoder):
    """Ways to decode SIDE in tiles: the largest, and as many as LARGE takes on a small card."""
    from decoders import planned
    from memory import RESERVE, SMALL_CARD

    from ComfyUI_DNO.nodes.host.sampling.aligner import DECODING_SHARE

    count = planned("SD1.5, SDXL", LARGE, (SMALL_CARD - RESERVE) * DECODING_SHARE).count
    ways = decoder._measured().ways((1, 1, SIDE // 8, SIDE // 8))
    tiled = [way for way in ways if not way.exact]
    return tiled[0], next(way for way in tiled if way.count >= count)


def pulled(decoder, latent, reward, way=None):
    """The gradient of a picture's reward by the latent, decoded by blocks or as is said."""
    import torch

    from ComfyUI_DNO.nodes.host.picture.plan import Way

    decoder._ways = [way or Way(1, decoder._measured().blocks)]
    decoder._shape = latent.shape
    leaf = latent.clone().requires_grad_()
    return torch.autograd.grad(reward(decoder(leaf)).sum(), leaf)[0]


def rows(name: str, vae) -> tuple[list[str], int]:
    """Of a decoder, and how many of them are below CLOSE."""
    import torch

    from ComfyUI_DNO import rewards
    from ComfyUI_DNO.nodes.host.ordinary import ordinary_modules
    from ComfyUI_DNO.nodes.host.picture.decode import Decoder

    shape, found, below = (1, vae.latent_channels, SIDE // 8, SIDE // 8), [], 0
    decoder = Decoder(vae, lambda latent: latent)
    latent = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode(False), ordinary_modules([vae.first_stage_model]):
        for reward in REWARDS:
            score = getattr(rewards, reward)()
            whole = pulled(decoder, latent, score)
            for way in in_tiles(decoder):
                close = pulled(decoder, latent, score, way)
                cosine = torch.cosine_similarity(whole.flatten(), close.flatten(), dim=0).item()
                sides = (way.tiles.scale * side for side in (way.tiles.width, way.tiles.height))
                words = f"{way.count} of {' x '.join(map(str, sides))}"
                found.append(f"| {name} | {SIDE} px | {words} | {reward} | {cosine:.4f} |")
                print(found[-1], flush=True)
                below += cosine < CLOSE
    return found, below


def main(names: list[str]) -> None:
    demo = Demo()
    makers = {"demo": lambda: demo.vae, "SDXL, random": random_vae}
    lines, below = [HEAD], 0
    for name, make in makers.items():
        if not names or name.split(",")[0] in names:
            found, less = rows(name, make())
            lines, below = [*lines, *found], below + less
    text = "\n".join(lines) + "\n"
    (Path(__file__).resolve().parent / "tiles.md").write_text(text, encoding="utf-8")
    if below:
        sys.exit(f"{below} of {len(lines) - 1} are below {CLOSE}.")


if __name__ == "__main__":
    main(sys.argv[1:])

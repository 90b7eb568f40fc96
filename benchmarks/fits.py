"""Which climbs fit on which cards, by what is counted of networks and of decoders in tiles."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from decoders import decoder_count, planned
from memory import RESERVE, SMALL_CARD, row

LEAST, EIGHT_BIT = -4, -1  # columns of a network's row


@dataclass(frozen=True)
class Target:
    """A climb that is to fit on a card of `card` GB; side: of a square as large as the picture."""

    words: str
    case: str
    decoder: str
    side: int
    card: int
    resident: bool = False  # whether 8-bit weights stay on the card


QWEN = "Wan 2.1, Qwen-Image"
TARGETS = [
    Target("SDXL, streamed", "SDXL", "SD1.5, SDXL", 1024, 8),
    Target("Flux.1 8-bit, streamed", "Flux.1-dev", "SD3, Flux", 1024, 12),
    Target("Flux.1 8-bit, resident", "Flux.1-dev", "SD3, Flux", 1024, 24, True),
    Target("Qwen-Image 1328, streamed", "Qwen-Image 1328 x 1328", QWEN, 1328, 16),
    Target("Wan 1.3B, one frame, streamed", "Wan2.1-1.3B 832 x 480", QWEN, 632, 8),
    Target("SDXL 2048, streamed", "SDXL 2048 x 2048", "SD1.5, SDXL", 2048, 8),
    Target("Flux.1 8-bit 2048, streamed", "Flux.1-dev 2048 x 2048", "SD3, Flux", 2048, 8),
]


def decoder_row(name: str) -> str:
    sizes = [decoder_count(name, side, by) for side in (1024, 2048) for by in (False, True)]
    tiled, words = in_tiles(name, 2048, SMALL_CARD - RESERVE)
    return row(name, *sizes, tiled, words)


@functools.cache
def in_tiles(name: str, side: int, free: float) -> tuple[float, str]:
    """GB that a decoder takes where `free` are, by blocks or in the tiles that the pack chooses."""
    from ComfyUI_DNO.nodes.host.sampling.aligner import DECODING_SHARE

    way = planned(name, side, free * DECODING_SHARE)
    taken = decoder_count(name, side, by_blocks=True, way=way)
    if not way.tiles:
        return taken, "none"
    width, height = (way.tiles.scale * side for side in (way.tiles.width, way.tiles.height))
    return taken, f"{way.count} of {width} x {height}"


def target_row(target: Target, network: list[float]) -> str:
    """Whether a climb fits, and if not, what of it does not."""
    weights = network[EIGHT_BIT] if target.resident else 0.0
    free = target.card - weights - RESERVE
    decoder, tiles = in_tiles(target.decoder, target.side, free)
    said = "fits" if tiles == "none" else f"fits, decoded in tiles: {tiles}"
    total = max(network[LEAST], decoder) + weights + RESERVE
    if total > target.card:
        parts = {"network": network[LEAST], "decoder": decoder}
        said = f"the {' and the '.join(name for name, gb in parts.items() if gb > free)} does not"
    return row(target.words, network[LEAST], decoder, weights, total, f"{target.card} GB", said)

"""What the demo's CLIP makes of pictures, asked with plain sentences only."""

import torch
from torch import Tensor
from transformers import CLIPModel

from ..vocabulary import BACKGROUNDS, COLOURS, CONCEPTS, prompt
from .captions import Captions
from .contrastive import image_embed, text_embed
from .phrases import rows_of
from .pictures import NATURAL, Labels


@torch.no_grad()
def accuracy(
    network: CLIPModel, captions: Captions, picture: Tensor, labels: Labels
) -> dict[str, float]:
    """Shares right: the thing of all things; its colour and its background, given the thing.

    picture: (B, 3, SIDE, SIDE) in [0, 1]. Colours count where the label names one.
    """
    seen = image_embed(network, picture)
    things = [CONCEPTS[index] for index in labels.concept]
    texts = {
        "concept": [prompt(name) for name in CONCEPTS],
        "colour": [prompt(thing, colour) for thing in things for colour in COLOURS],
        "background": [prompt(thing, None, ground) for thing in things for ground in BACKGROUNDS],
    }
    known = len(captions.identifiers)
    said = {
        name: text_embed(network, rows_of(captions.tokens(sentences), known))
        for name, sentences in texts.items()
    }
    right = {"concept": (seen @ said["concept"].T).argmax(1) == labels.concept}
    for name, truth in (("colour", labels.colour - 1), ("background", labels.background)):
        each = said[name].unflatten(0, (len(seen), -1))
        right[name] = (each @ seen[:, :, None])[..., 0].argmax(1) == truth
    right["colour"] = right["colour"][labels.colour != NATURAL]
    return {name: marks.float().mean().item() for name, marks in right.items()}

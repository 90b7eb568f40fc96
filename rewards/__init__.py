"""Rewards: one per file, image (B,3,H,W) sRGB in [0,1] -> reward (B,), higher is better.

Modifiers, also one per file, make a reward of a reward. To add either, write its file and name it
here; see README.md beside this file.
"""

from .aesthetic import Aesthetic
from .black_and_white import BlackAndWhite
from .brightness import Brightness
from .clamp import Clamp
from .clip_text_similarity import CLIPTextSimilarity
from .colour import Colour
from .composition import Composition
from .contrast import Contrast
from .crop import Crop
from .cutouts import Cutouts
from .darkness import Darkness
from .edges import Edges
from .file_size import FileSize
from .hpsv2 import HPSv2
from .hpsv3 import HPSv3
from .image_reward import ImageReward
from .image_similarity import ImageSimilarity
from .jpeg_compressibility import JPEGCompressibility
from .jpeg_incompressibility import JPEGIncompressibility
from .layout import Layout
from .lrm import LRM
from .mask import Mask
from .minimum import Minimum
from .mps import MPS
from .negate import Negate
from .normalise import Normalise
from .palette import Palette
from .palette_size import PaletteSize
from .pick_score import PickScore
from .saturation import Saturation
from .sharpness import Sharpness
from .smoothness import Smoothness
from .style_similarity import StyleSimilarity
from .symmetry import Symmetry
from .target import Target
from .tiling import Tiling
from .vqa_score import VQAScore
from .warmth import Warmth

REWARDS = (
    Brightness,
    Darkness,
    Contrast,
    Colour,
    Saturation,
    Warmth,
    BlackAndWhite,
    Palette,
    Sharpness,
    Smoothness,
    Symmetry,
    Composition,
    Edges,
    Layout,
    Tiling,
    JPEGCompressibility,
    JPEGIncompressibility,
    FileSize,
    PaletteSize,
    Aesthetic,
    CLIPTextSimilarity,
    ImageSimilarity,
    StyleSimilarity,
    PickScore,
    HPSv2,
    ImageReward,
    MPS,
    VQAScore,
    HPSv3,
    LRM,
)

MODIFIERS = (Clamp, Target, Negate, Normalise, Mask, Crop, Cutouts)

__all__ = [
    "MODIFIERS",
    "REWARDS",
    "Minimum",
    *(named.__name__ for named in REWARDS + MODIFIERS),
]

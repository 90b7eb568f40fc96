"""Where published reward models are, under which licence, and where their files go here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

_BERT = "google-bert/bert-base-uncased"


@dataclass(frozen=True)
class Piece:
    """Files of one Hugging Face repository and their place below models/reward_models.

    A `source` that ends in / is a folder with all below it, "/" the whole repository; then the
    `target` is a folder too.
    """

    repository: str
    source: str
    target: str

    @property
    def is_folder(self) -> bool:
        return self.source.endswith("/")


@dataclass(frozen=True)
class Published:
    """One reward model. `load`: its name for Load Reward Model. `names`: others that it goes by.

    `gigabytes`: of all pieces, as their pages say, or None.
    """

    name: str
    reward: str
    licence: str
    gigabytes: float | None
    load: str
    pieces: tuple[Piece, ...]
    names: tuple[str, ...] = ()

    @property
    def label(self) -> str:
        """What a menu shows: the name, and the size if it is known."""
        return f"{self.name} ({self.gigabytes:g} GB)" if self.gigabytes else self.name

    @property
    def origin(self) -> str:
        """Which files of which pages, in words."""
        return " and ".join(_words(self.pieces))


def _words(pieces: tuple[Piece, ...]) -> list[str]:
    sources: dict[str, list[str]] = {}
    for piece in pieces:
        named = f"the folder {piece.source[:-1]}" if piece.source != "/" else "all files"
        sources.setdefault(piece.repository, []).append(named if piece.is_folder else piece.source)
    return [f"{', '.join(files)} of huggingface.co/{page}" for page, files in sources.items()]


def _folder(repository: str, name: str, files: tuple[str, ...]) -> tuple[Piece, ...]:
    return tuple(Piece(repository, file, f"{name}/{file}") for file in files)


_TRANSFORMERS = ("config.json", "model.safetensors")
_SIGLIP_WORDS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")

PUBLISHED = (
    Published(
        "PickScore v1", "PickScore", "MIT", 3.94, "PickScore_v1",
        _folder("yuvalkirstain/PickScore_v1", "PickScore_v1", _TRANSFORMERS),
    ),
    Published(
        "HPSv2.1", "HPSv2", "Apache-2.0", 3.94, "HPSv2.1.safetensors",
        (Piece("RE-N-Y/hpsv21", "model.safetensors", "HPSv2.1.safetensors"),),
    ),
    Published(
        "HPSv2.1, half precision", "HPSv2", "Apache-2.0", 1.97, "HPS_v2.1_compressed.pt",
        (Piece("xswu/HPSv2", "HPS_v2.1_compressed.pt", "HPS_v2.1_compressed.pt"),),
    ),
    Published(
        "HPSv2, half precision", "HPSv2", "Apache-2.0", 1.97, "HPS_v2_compressed.pt",
        (Piece("xswu/HPSv2", "HPS_v2_compressed.pt", "HPS_v2_compressed.pt"),),
        ("HPS_v2.pt",),
    ),
    Published(
        "ImageReward", "ImageReward", "Apache-2.0", 1.79, "ImageReward.safetensors",
        (
            Piece("RE-N-Y/ImageReward", "model.safetensors", "ImageReward.safetensors"),
            Piece(_BERT, "vocab.txt", "bert-base-uncased/vocab.txt"),
        ),
        ("ImageReward.pt",),
    ),
    Published(
        "MPS", "MPS", "MIT", 4.42, "MPS.safetensors",
        (Piece("RE-N-Y/mpsv1", "model.safetensors", "MPS.safetensors"),),
        ("MPS_overall_checkpoint.pth", "mpsv1.safetensors"),
    ),
    Published(
        "LAION aesthetic v2", "Aesthetic", "Apache-2.0", 1.22, "laion-aesthetic.safetensors",
        (Piece("RE-N-Y/laion-aesthetic", "model.safetensors", "laion-aesthetic.safetensors"),),
        ("sac+logos+ava1-l14-linearMSE.pth", "sac+logos+ava1-l14-linearMSE.safetensors"),
    ),
    Published(
        "CLIP ViT-L/14", "CLIP Text Similarity", "MIT", 1.71, "clip-vit-large-patch14",
        _folder("openai/clip-vit-large-patch14", "clip-vit-large-patch14", _TRANSFORMERS),
    ),
    Published(
        "CLIP ViT-H/14", "CLIP Text Similarity", "MIT", 3.94, "CLIP-ViT-H-14-laion2B-s32B-b79K",
        _folder(
            "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
            "CLIP-ViT-H-14-laion2B-s32B-b79K",
            _TRANSFORMERS,
        ),
    ),
    Published(
        "SigLIP so400m", "CLIP Text Similarity", "Apache-2.0", 3.51, "siglip-so400m-patch14-384",
        _folder(
            "google/siglip-so400m-patch14-384",
            "siglip-so400m-patch14-384",
            (*_TRANSFORMERS, *_SIGLIP_WORDS, "spiece.model"),
        ),
    ),
    Published(
        "DINOv2 base", "Image Similarity", "Apache-2.0", 0.35, "dinov2-base",
        _folder("facebook/dinov2-base", "dinov2-base", _TRANSFORMERS),
    ),
    Published(
        "DINOv2 large", "Image Similarity", "Apache-2.0", 1.22, "dinov2-large",
        _folder("facebook/dinov2-large", "dinov2-large", _TRANSFORMERS),
    ),
    Published(
        "VQAScore, CLIP-FlanT5 XL", "VQAScore", "Apache-2.0", 6.32, "clip-flant5-xl",
        _folder("zhiqiulin/clip-flant5-xl", "clip-flant5-xl", ("config.json", "pytorch_model.bin")),
    ),
    Published(
        "VQAScore, CLIP-FlanT5 XXL", "VQAScore", "Apache-2.0", 23, "clip-flant5-xxl",
        (Piece("zhiqiulin/clip-flant5-xxl", "/", "clip-flant5-xxl/"),),
    ),
    Published(
        "HPSv3", "HPSv3", "MIT", None, "HPSv3.safetensors",
        (Piece("MizzenAI/HPSv3", "HPSv3.safetensors", "HPSv3.safetensors"),),
    ),
    Published(
        "LRM for SD 1.5", "LRM", "MIT", None, "lrm_sd15",
        (Piece("casiatao/LRM", "lrm_sd15/", "lrm_sd15/"),),
    ),
    Published(
        "LRM for SDXL", "LRM", "MIT", None, "lrm_sdxl",
        (Piece("casiatao/LRM", "lrm_sdxl/", "lrm_sdxl/"),),
    ),
)  # fmt: skip


def by_label(label: str) -> Published:
    """Raises ValueError, one sentence, where the catalogue has no such entry.

    >>> by_label("PickScore v1").licence
    'MIT'
    """
    for entry in PUBLISHED:
        if label in (entry.label, entry.name):
            return entry
    raise ValueError(
        f"{label} is not in the catalogue of reward models: choose one of "
        f"{', '.join(entry.name for entry in PUBLISHED)}."
    )


def known_as(name: str) -> Published | None:
    """The entry that a file or folder of this name was published as, wherever it lay.

    >>> known_as("old/sac+logos+ava1-l14-linearMSE.pth").name
    'LAION aesthetic v2'
    """
    published = PurePosixPath(name.replace("\\", "/"))
    for entry in PUBLISHED:
        own = {entry.load, *entry.names, *(piece.repository for piece in entry.pieces[:1])}
        targets = {piece.target for piece in entry.pieces}
        if str(published) in targets or published.name.casefold() in {
            PurePosixPath(one).name.casefold() for one in own
        }:
            return entry
    return None

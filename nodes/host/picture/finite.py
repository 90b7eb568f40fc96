"""What to do about a picture of NaN: black, and loved by every reward that cannot see it."""

from __future__ import annotations

import torch


def overflowed(vae=None) -> str:
    """What has happened to a VAE whose picture is not finite, and the mend, in a sentence."""
    kind = getattr(vae, "vae_dtype", None)
    where = f" in {str(kind).removeprefix('torch.')}" if kind else ""
    if kind == torch.float32:
        return f"The VAE overflowed{where}: its file may be damaged, download it again."
    return (
        f"The VAE overflowed{where}: start ComfyUI with --fp32-vae, or use a VAE that is made for "
        "half precision."
    )


def not_finite(what: str, vae=None) -> str:
    """The sentence for a "latent" or a "picture" with NaN or infinity, after a name and a colon.

    vae: what decoded it, where that is known.
    """
    if what == "latent":
        return (
            "the model's latent is not finite (NaN or infinity), its arithmetic overflowed: use "
            "another precision, such as --bf16-unet or --fp32-unet when ComfyUI is started."
        )
    said = overflowed(vae)
    return f"the decoded picture is not finite (NaN or infinity). {said}"

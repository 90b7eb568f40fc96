"""A small decoder for the climb, where the user has one: a TAESD of the model's latent format."""

from __future__ import annotations

import folder_paths

DECODER = "_decoder"
SMALL = "comfy.taesd."  # where ComfyUI has the small decoders' networks


def small_decoder(latent_format) -> str | None:
    """What Load VAE calls the small VAE of this latent format; None if it is not there.

    TAESD comes as a decoder and an encoder in models/vae_approx, of which Load VAE needs both; the
    small decoders of video models are one file.
    """
    name = getattr(latent_format, "taesd_decoder_name", None)
    if not name:
        return None
    files = sorted(folder_paths.get_filename_list("vae_approx"))
    if not name.endswith(DECODER):
        return next((file for file in files if file.startswith(name)), None)
    small = name.removesuffix(DECODER)
    both = [any(f.startswith(f"{small}_{part}.") for f in files) for part in ("decoder", "encoder")]
    return small if all(both) else None


def hint(latent_format, vae) -> str:
    """A sentence on the small decoder that could be climbed with; empty if there is no other."""
    network = getattr(vae, "first_stage_model", None)
    decoder = small_decoder(latent_format)
    if not decoder or type(network).__module__.startswith(SMALL):
        return ""
    return f"Load VAE has {decoder}, a small decoder of this model: climb with it."

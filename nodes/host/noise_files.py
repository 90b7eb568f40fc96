"""Saved noises: safetensors in the output folder, with the settings that made them."""

from __future__ import annotations

from pathlib import Path

import folder_paths
import safetensors

from ...dno.noise import Noise

FOLDER = "dno_noise"


def load(path: Path) -> tuple[Noise, dict[str, str]]:
    """A saved noise and its settings. Raises ValueError for a file of another kind."""
    with safetensors.safe_open(str(path), framework="pt") as file:
        settings, names = file.metadata() or {}, sorted(file.keys())
        tensors = [file.get_tensor(name) for name in names]
    if not names or not all(name.isdigit() for name in names):
        raise ValueError(f"file: {path.name} holds no noise that DNO Save Noise saved.")
    return Noise(tensors[0], tensors[1:], settings.get("scope", "all")), settings


def next_path(name: str) -> Path:
    """output/dno_noise/name_00001.safetensors, the next number that is free."""
    plain = "".join(c for c in name if c.isalnum() or c in "-_ ").strip() or "noise"
    folder().mkdir(parents=True, exist_ok=True)
    number = 1
    while (path := folder() / f"{plain}_{number:05d}.safetensors").exists():
        number += 1
    return path


def saved() -> list[str]:
    """Names of the saved noises, the newest first."""
    files = folder().glob("*.safetensors")
    return [p.name for p in sorted(files, key=lambda p: p.stat().st_mtime, reverse=True)]


def folder() -> Path:
    return Path(folder_paths.get_output_directory()) / FOLDER

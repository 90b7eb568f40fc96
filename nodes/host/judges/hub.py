"""What is asked of the Hugging Face hub, and its refusals as one sentence.

huggingface_hub is imported when something is asked, never before. HF_ENDPOINT, HF_TOKEN and
HF_HUB_OFFLINE mean what they mean there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ....rewards.models.catalogue import Piece

_KINDS = (".json", ".safetensors", ".bin", ".pt", ".txt", ".model")
_NOT_WEIGHTS = ("training_args.bin", "optimizer.bin", "trainer_state.json")
_TRIES, _PAUSE, _SECONDS = 2, 1.0, 30  # after a lost connection; before another; for an answer
_AGAIN = "run this again, it goes on where it stopped"


@dataclass(frozen=True)
class Remote:
    """One file as the hub knows it. `checksum`: sha256 of large files, else git's sha1."""

    repository: str
    revision: str
    path: str
    size: int
    checksum: str
    target: Path

    @property
    def part(self) -> Path:
        """Where it grows; another version of the file has another one."""
        return self.target.with_name(f"{self.target.name}.{self.checksum[:8]}.part")

    @property
    def held(self) -> int:
        """Bytes that are there already."""
        return min(self.part.stat().st_size, self.size) if self.part.is_file() else 0


class Hub:
    """Raises RuntimeError, one sentence, where it says no or does not answer."""

    def __init__(self) -> None:
        try:
            import huggingface_hub
        except ImportError:
            raise RuntimeError(
                "Download Reward Model needs huggingface_hub: run pip install huggingface_hub "
                "in ComfyUI's Python and restart it."
            ) from None
        self._hub = huggingface_hub
        self._endpoint = os.environ.get("HF_ENDPOINT") or None
        self._api = huggingface_hub.HfApi(endpoint=self._endpoint)

    def files(self, pieces: Iterable[Piece], root: Path) -> list[Remote]:
        """The files of the pieces, of one revision of each repository."""
        revisions: dict[str, str] = {}
        files: list[Remote] = []
        for piece in pieces:
            page = piece.repository
            with _sentences(page, piece.source):
                if page not in revisions:
                    revisions[page] = self._api.model_info(page).sha
                listed = list(self._listed(piece, revisions[page]))
            if not listed:
                raise RuntimeError(_gone(page, piece.source))
            for file, name in listed:
                checksum = file.lfs.sha256 if file.lfs else file.blob_id
                target = root / name
                files.append(Remote(page, revisions[page], file.path, file.size, checksum, target))
        return files

    def _listed(self, piece: Piece, revision: str) -> Iterator[tuple]:
        """(what the hub knows of a file, its target)"""
        page = piece.repository
        if not piece.is_folder:
            for file in self._api.get_paths_info(page, [piece.source], revision=revision):
                yield file, piece.target
            return
        below = piece.source.rstrip("/")
        listed = self._api.list_repo_tree(page, below or None, recursive=True, revision=revision)
        files = {file.path: file for file in listed if hasattr(file, "size")}
        for path in needed(files):
            inner = PurePosixPath(path).relative_to(below) if below else path
            yield files[path], f"{piece.target}{inner}"

    def read(self, file: Remote, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of a file."""
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_backoff

        url = self._hub.hf_hub_url(
            file.repository, file.path, revision=file.revision, endpoint=self._endpoint
        )
        headers = {**build_hf_headers(), "Range": f"bytes={start}-{stop - 1}"}
        with _sentences(file.repository, file.path):
            patience = {"max_retries": _TRIES, "base_wait_time": _PAUSE, "timeout": _SECONDS}
            answer = http_backoff("GET", url, headers=headers, **patience)
            hf_raise_for_status(answer)
            if len(answer.content) != stop - start:
                raise ConnectionError("the answer has another length than was asked for")
        return answer.content


def needed(paths: Iterable[str]) -> list[str]:
    """The files of a folder that loading takes: no pickles beside safetensors, none of training."""
    kept = [
        path
        for path in sorted(paths)
        if path.endswith(_KINDS) and PurePosixPath(path).name not in _NOT_WEIGHTS
    ]
    safe = {PurePosixPath(path).parent for path in kept if path.endswith(".safetensors")}

    def spare(path: str) -> bool:
        return path.endswith((".bin", ".bin.index.json")) and PurePosixPath(path).parent in safe

    return [path for path in kept if not spare(path)]


@contextmanager
def _sentences(page: str, path: str) -> Iterator[None]:
    """What huggingface_hub raises, said in one sentence that tells what to do."""
    from huggingface_hub import errors

    httpx = sys.modules.get("httpx")  # newer hubs speak through it, older ones through requests
    lost = (OSError, *((httpx.HTTPError,) if httpx else ()))
    address = f"huggingface.co/{page}"
    try:
        yield
    except errors.GatedRepoError:
        raise RuntimeError(
            f"{address} is given to those who accept its licence: accept it on that page, set "
            "HF_TOKEN to a token of yours from huggingface.co/settings/tokens and restart ComfyUI."
        ) from None
    except errors.RepositoryNotFoundError:
        raise RuntimeError(
            f"{address} was not found: it is gone, or private and HF_TOKEN holds no token for it."
        ) from None
    except (errors.EntryNotFoundError, errors.RevisionNotFoundError):
        raise RuntimeError(_gone(page, path)) from None
    except errors.OfflineModeIsEnabled:
        raise RuntimeError(
            f"HF_HUB_OFFLINE is set, so {path} of {address} is not downloaded: unset it and "
            "restart ComfyUI, or put the file there yourself."
        ) from None
    except lost as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status in (401, 403):
            raise RuntimeError(
                f"{address} refuses the token in HF_TOKEN: set a valid one, or none."
            ) from None
        why = f"answered with error {status}" if status else f"was not reached ({_first(error)})"
        raise RuntimeError(f"{address} {why}: {_AGAIN}.") from None


def _gone(page: str, path: str) -> str:
    return f"huggingface.co/{page} has no {path} any more: see there what it is called now."


def _first(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:120]

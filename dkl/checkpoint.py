"""Files that are whole or absent: written beside, synced, renamed; read without running code."""

import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch

from dkl.errors import UserError


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Have ``write`` fill a temporary file beside ``path``, sync it to disk and rename it over ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values atomically."""
    write_atomically(path, lambda file: torch.save(content, file))


def read(path: Path, map_location: str | torch.device = "cpu") -> Any:
    """The content of a checkpoint, read with ``weights_only=True``. Raises UserError where that cannot be done."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{path} holds more than tensors and plain values, and loading it could run code. If you trust it, convert "
            f"it once: torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pt'). ({error})"
        ) from None
    except (EOFError, RuntimeError, ValueError) as error:
        raise UserError(f"{path} is not a readable checkpoint: {error}") from None


def sha256(path: Path) -> str:
    """Hash of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

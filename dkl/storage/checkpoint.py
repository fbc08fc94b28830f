"""Checkpoints of tensors and plain values: written atomically, and read without running code.

A checkpoint is a zip archive that stores a checksum of each of its tensors, written with them. Reading compares all of
them, also in files of other projects. Only torch's format before version 1.6 has none.
"""

import hashlib
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from dkl.errors import UserError, first_line, needs_extra
from dkl.storage.files import damage, write_atomically

ZIP, PICKLE = b"P", b"\x80"
"""First bytes of a checkpoint, and of one by torch before 1.6."""


READING_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, struct.error),
)
"""Errors of torch on files that it cannot read."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values atomically."""
    write_atomically(path, lambda file: torch.save(content, file))


def _read_safetensors(path: Path, map_location: str | torch.device) -> dict[str, torch.Tensor]:
    """Read a safetensors file, which holds tensors alone. Raises UserError if it is not one."""
    with needs_extra("full"):
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    try:
        return load_file(path, device=str(map_location))
    except (SafetensorError, *READING_ERRORS) as error:
        raise UserError(
            f"{path} is not a readable safetensors file, perhaps a saved web page or part of a file; fetch it again "
            f"({first_line(error)})"
        ) from None


def read(path: Path, map_location: str | torch.device = "cpu") -> Any:
    """Read a checkpoint with ``weights_only=True``.

    Raises UserError if that is not possible, or if the content does not match the checksums in the file.
    """
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; check the path, or train the run first")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, map_location)
    # torch's own message for such a file suggests weights_only=False, which would run whatever the file contains.
    with path.open("rb") as file:
        first = file.read(1)
    if first not in (ZIP, PICKLE):
        raise UserError(f"{path} is not a checkpoint of torch, perhaps a saved web page; fetch it again")
    if first == ZIP and (why := damage(path)):
        raise UserError(
            f"{path} is damaged or incomplete ({why}): copy it again, or if it is your own run's, delete it and train "
            "again by the same command"
        )
    try:
        if first == PICKLE:
            pickles = path.read_bytes()
        else:
            with zipfile.ZipFile(path) as archive:
                pickles = b"".join(archive.read(name) for name in archive.namelist() if name.lower().endswith(".pkl"))
        if b"bytearray" in pickles:
            raise pickle.UnpicklingError("GLOBAL bytearray")  # torch allows it, but bytearray(10**10) fills the memory
        with warnings.catch_warnings():  # torch warns of a pickle that it then refuses
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # Only the name of the refused class is quoted: the rest of torch's text is long, and gives that same advice.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = refused[1] if refused else "another pickle than torch writes"
        raise UserError(
            f"{path} holds more than tensors and plain values ({what}), so "
            "loading it could run code. If you trust it, convert it: "
            "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pt')"
        ) from None
    except READING_ERRORS as error:
        raise UserError(
            f"{path} is not a readable checkpoint, perhaps an incomplete copy; fetch it again ({first_line(error)})"
        ) from None


def weights_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Hash the names, shapes and values of a state dict, in hex; independent of the file that held it."""
    content = hashlib.sha256()
    # Sorted, because a checkpoint may list the same weights in another order.
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        content.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        content.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return content.hexdigest()

"""Checkpoints of tensors and plain values: written atomically, and read without running code."""

import pickle
import re
import struct
from pathlib import Path
from typing import Any

import torch

from dkl.errors import UserError, first_line
from dkl.files import write_atomically


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint of tensors and plain values atomically."""
    write_atomically(path, lambda file: torch.save(content, file))


def read(path: Path, map_location: str | torch.device = "cpu") -> Any:
    """Read a checkpoint with ``weights_only=True``. Raises UserError if that is not possible."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {path}; check the path, or train the run first")
    # torch's own message for such a file suggests weights_only=False, which would run whatever the file contains.
    with path.open("rb") as file:
        if file.read(1) not in (b"P", b"\x80"):  # the first bytes of a zip, and of a pickle by torch before 1.6
            raise UserError(f"{path} is not a checkpoint of torch, perhaps a saved web page; fetch it again")
    try:
        return torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        # Only the name of the refused class is quoted: the rest of torch's text is long, and gives that same advice.
        refused = re.search(r"GLOBAL (\S+)", str(error))
        raise UserError(
            f"{path} holds more than tensors and plain values ({refused[1] if refused else first_line(error)}), so "
            "loading it could run code. If you trust it, convert it: "
            "torch.save(torch.load(path, weights_only=False)['state_dict'], 'weights.pt')"
        ) from None
    except (EOFError, LookupError, OSError, RuntimeError, ValueError, struct.error) as error:
        raise UserError(
            f"{path} is not a readable checkpoint, perhaps an incomplete copy; fetch it again ({first_line(error)})"
        ) from None

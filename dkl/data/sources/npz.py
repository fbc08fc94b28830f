"""``.npz`` files, read whole into memory."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from dkl.data.images.in_memory import Images
from dkl.errors import UserError


def images_from_arrays(images: NDArray[np.generic], labels: NDArray[np.generic], source: str) -> Images:
    """Make ``Images`` of uint8 arrays (N, H, W, C), C 1 or 3, and integer labels (N,).

    Raises UserError on another dtype or shape; ``source`` names the arrays in the message.
    """
    if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{source}: image must be uint8 (N, H, W, 3) or (N, H, W, 1), not {images.dtype} {images.shape}"
        )
    if labels.shape != (len(images),) or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(f"{source}: label must be {len(images)} integers, not {labels.dtype} {labels.shape}")
    pixels = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    return Images(pixels, torch.from_numpy(labels.astype(np.int64)))


def _read(path: Path) -> Images:
    try:
        with path.open("rb") as file, np.lib.npyio.NpzFile(file, allow_pickle=False) as content:
            if missing := {"image", "label"} - set(content.files):
                raise UserError(
                    f"{path} has no array named {' and '.join(sorted(missing))}, but {content.files}; name them image "
                    "and label"
                )
            return images_from_arrays(content["image"], content["label"], str(path))
    except FileNotFoundError:
        raise UserError(f"there is no file {path}: set paths.data, or data.source.train and data.source.test") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{path} cannot be read as an .npz of plain arrays: {error}; write it again with numpy.savez"
        ) from None


def npz(train: str, test: str) -> tuple[Images, Images]:
    """Read two ``.npz`` files with ``image`` uint8 (N, H, W, C) and ``label`` (N,).

    Raises UserError if a file is missing, damaged, or has other arrays.
    """
    return _read(Path(train)), _read(Path(test))

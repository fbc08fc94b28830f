"""From an image file to the square that a model sees: a random crop for training, the middle for validation.

Decoded and resized by Pillow, as the published ImageNet accuracies were; drawn by torchvision's transforms.
"""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.transforms import v2

from dkl.errors import UserError

Transform = Callable[[Any], Any]

DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)


def random_crop(size: int, *, flip: bool) -> Transform:
    """A crop of 8 to 100 % of the area at 3:4 to 4:3, resized to ``size``, and mirrored with probability ½."""
    return v2.Compose([v2.RandomResizedCrop(size), *([v2.RandomHorizontalFlip()] if flip else [])])


def middle_crop(size: int) -> Transform:
    """The shorter side resized to ``size`` / 0.875 (256 for 224), and the middle of it."""
    return v2.Compose([v2.Resize(size * 8 // 7), v2.CenterCrop(size)])


def read_crop(path: Path, transform: Transform, seed: int | None = None) -> NDArray[np.uint8]:
    """RGB pixels [size, size, 3] of one file; ``seed`` decides what ``transform`` draws, and is left in torch's
    global generator. Raises UserError where the file is no image."""
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except DAMAGED as error:
        raise UserError(f"{path} cannot be read as an image: {error}; fetch it anew, or take it out") from None
    if seed is not None:
        torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed every GPU as well
    return np.asarray(transform(rgb))

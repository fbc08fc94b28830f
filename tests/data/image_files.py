"""Small image files in one folder per class, and their center crops by Pillow alone."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dkl.data import ImageFiles

SIZES = [(40, 30), (33, 50), (32, 32), (64, 41)]  # width, height
CLASSES = ["n01", "n02", "n03"]


def write_image(path: Path, seed: int, mode: str = "RGB") -> None:
    """Write a JPEG of random colors in small patches; its size depends on ``seed``. Any suffix works."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = SIZES[seed % len(SIZES)]
    patches = np.random.default_rng(seed).integers(256, size=(height // 4, width // 4, 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    image.save(path, "JPEG", quality=95)


def write_folder(root: Path, per_class: int, first: int = 0) -> list[Path]:
    """Write ``per_class`` JPEGs for each of ``CLASSES`` under ``root``. Returns their sorted paths."""
    paths = [root / name / f"{number:03}.JPEG" for name in CLASSES for number in range(per_class)]
    for number, path in enumerate(paths):
        write_image(path, first + number)
    return paths


def make_files(root: Path, per_class: int = 4, size: int = 32) -> ImageFiles:
    """The images of ``folder`` with their labels."""
    names = [str(path.relative_to(root)) for path in write_folder(root, per_class)]
    return ImageFiles.from_names(root, names, [CLASSES.index(name[:3]) for name in names], size=size)


def center(
    path: Path, size: int, share: float = 0.875, by: Image.Resampling = Image.Resampling.BILINEAR
) -> NDArray[np.uint8]:
    """The center crop [size, size, 3] of the image resized to a shorter side of ``size`` / ``share``."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    short = math.floor(size / share)
    scale = short / min(image.size)
    width, height = (math.floor(side * scale + 1e-9) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), by)
    return np.asarray(resized.crop((left, top, left + size, top + size)))

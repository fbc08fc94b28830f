"""Small image files in a folder a class, and what a model should see of them, made with Pillow alone."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dkl.data import ImageFiles

SIZES = [(40, 30), (33, 50), (32, 32), (64, 41)]  # width, height
CLASSES = ["n01", "n02", "n03"]


def picture(path: Path, seed: int, mode: str = "RGB") -> None:
    """Random colours in patches of a few pixels, of a size that depends on ``seed``; the suffix does not matter."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = SIZES[seed % len(SIZES)]
    patches = np.random.default_rng(seed).integers(256, size=(height // 4, width // 4, 3), dtype=np.uint8)
    image = Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC).convert(mode)
    image.save(path, "JPEG", quality=95)


def folder(root: Path, per_class: int, first: int = 0) -> list[Path]:
    """``per_class`` JPEGs in each of ``CLASSES`` under ``root``; their paths, sorted."""
    paths = [root / name / f"{number:03}.JPEG" for name in CLASSES for number in range(per_class)]
    for number, path in enumerate(paths):
        picture(path, first + number)
    return paths


def make_files(root: Path, per_class: int = 4, size: int = 32) -> ImageFiles:
    """The images of ``folder``, labelled."""
    names = [str(path.relative_to(root)) for path in folder(root, per_class)]
    return ImageFiles.from_names(root, names, [CLASSES.index(name[:3]) for name in names], size=size)


def middle(path: Path, size: int) -> NDArray[np.uint8]:
    """[size, size, 3]: the shorter side at ``size`` / 0.875, and the middle of it."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    short = math.floor(size / 0.875)
    scale = short / min(image.size)
    width, height = (math.floor(side * scale + 1e-9) for side in image.size)
    left, top = round((width - size) / 2), round((height - size) / 2)
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + size, top + size)))

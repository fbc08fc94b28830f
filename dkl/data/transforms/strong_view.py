"""The strong view of FixMatch (Sohn et al. 2020): random operations on a PIL image, then a gray hole.

As in USB, ``operations`` are drawn with replacement from 14, each with a strength uniform in its range; RandAugment's
usual magnitude has no part in it. timm computes them. Moved images are resampled to the nearest pixel, and uncovered
pixels are black.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from PIL import Image, ImageDraw
from timm.data import auto_augment as timm_ops
from torch import Tensor

from dkl.errors import UserError
from dkl.validation import SHARE, Range, check_fields

GRAY = (125, 123, 114)
"""Color of the hole: CIFAR's mean."""

_NEAREST = {"resample": Image.Resampling.NEAREST, "fillcolor": None}


def _moved(change: Callable[..., Image.Image]) -> Callable[[Image.Image, float], Image.Image]:
    return lambda image, strength: change(image, strength, **_NEAREST)


OPERATIONS: dict[str, tuple[Callable[[Image.Image, float], Image.Image], float, float]] = {
    "autocontrast": (lambda image, _: timm_ops.auto_contrast(image), 0, 1),
    "brightness": (timm_ops.brightness, 0.05, 0.95),
    "color": (timm_ops.color, 0.05, 0.95),
    "contrast": (timm_ops.contrast, 0.05, 0.95),
    "equalize": (lambda image, _: timm_ops.equalize(image), 0, 1),
    "identity": (lambda image, _: image, 0, 1),
    "posterize": (lambda image, bits: timm_ops.posterize(image, int(bits)), 4, 8),
    "rotate": (_moved(timm_ops.rotate), -30, 30),
    "sharpness": (timm_ops.sharpness, 0.05, 0.95),
    "shear_x": (_moved(timm_ops.shear_x), -0.3, 0.3),
    "shear_y": (_moved(timm_ops.shear_y), -0.3, 0.3),
    "solarize": (timm_ops.solarize, 0, 256),
    "translate_x": (_moved(timm_ops.translate_x_rel), -0.3, 0.3),
    "translate_y": (_moved(timm_ops.translate_y_rel), -0.3, 0.3),
}
"""Name -> function of an image and a strength, and the range of the strength."""

_ALL = tuple(OPERATIONS.values())


@dataclass(frozen=True, kw_only=True)
class StrongView:
    """Changes one image strongly; the seed fixes how. Raises UserError if a setting is out of range.

    ``operations`` are drawn with replacement and applied with ``probability`` each. The hole's side is uniform between
    the shares ``smallest_hole`` and ``largest_hole`` of the image's width.
    """

    operations: Annotated[int, Range(0, 100)] = 3
    probability: Annotated[float, SHARE] = 1.0
    smallest_hole: Annotated[float, SHARE] = 0.0
    largest_hole: Annotated[float, SHARE] = 0.5

    def __post_init__(self) -> None:
        check_fields(self, "data.unlabeled")
        if self.smallest_hole > self.largest_hole:
            raise UserError(
                f"data.unlabeled.smallest_hole={self.smallest_hole} and data.unlabeled.largest_hole={self.largest_hole}"
                " must lie in [0, 1], the smallest first"
            )

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Return the strong view of ``image``, uint8 [C, H, W] with 1 or 3 channels."""
        draw = np.random.default_rng(seed)
        pixels = image.permute(1, 2, 0).numpy()
        changed = Image.fromarray(np.ascontiguousarray(pixels if len(image) == 3 else pixels[..., 0]))
        for number in draw.integers(len(_ALL), size=self.operations):
            change, low, high = _ALL[number]
            strength, applied = draw.uniform(low, high), draw.random() < self.probability
            changed = change(changed, strength) if applied else changed
        side = draw.uniform(self.smallest_hole, self.largest_hole) * changed.width
        if side > 0:
            changed = cut_hole(changed, side, draw.uniform(0, changed.width), draw.uniform(0, changed.height))
        return torch.from_numpy(np.array(changed)).view(*image.shape[1:], len(image)).permute(2, 0, 1)


def cut_hole(image: Image.Image, side: float, x: float, y: float) -> Image.Image:
    """Fill a square of ``side`` pixels around (``x``, ``y``) with gray, as USB does: clipped, both edges included."""
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    box = (left, top, min(image.width, left + side), min(image.height, top + side))
    image = image.copy()
    color = GRAY if image.mode == "RGB" else round(sum(GRAY) / len(GRAY))
    ImageDraw.Draw(image).rectangle(box, color)
    return image

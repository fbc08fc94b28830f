"""CIFAR-10's AutoAugment policy (Cubuk et al. 2019) by the code that the official training uses.

It differs from torchvision's on tensors: shears are bicubic and not to the nearest pixel; translations are not rounded
to whole pixels first (15 and 13 pixels of 32 instead of 14 and 12); the rotation is always counterclockwise; and Pillow
computes colors. Uncovered pixels are gray. Source: jiequancui/DKL, autoaug.py, ``CIFAR10Policy``.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import auto_augment as timm_ops
from torch import Tensor

GRAY = (128, 128, 128)
"""Color of the pixels that a transform uncovers."""

_BICUBIC: dict[str, Any] = {"resample": Image.Resampling.BICUBIC, "fillcolor": GRAY}
_NEAREST: dict[str, Any] = {"resample": Image.Resampling.NEAREST, "fillcolor": GRAY}

Operation = Callable[[Image.Image, float, Random], Image.Image]
"""An image, the level in 0, 1/9, …, 1 and the source of a random sign -> the changed image."""


def _signed(change: Callable[..., Image.Image], largest: float, base: float = 0, **settings: Any) -> Operation:
    """``change`` by ``base`` plus or minus a share of ``largest``."""
    return lambda image, level, draw: change(image, base + largest * level * draw.choice([-1, 1]), **settings)


OPERATIONS: dict[str, Operation] = {
    "shear_y": _signed(timm_ops.shear_y, 0.3, **_BICUBIC),
    "translate_x": _signed(timm_ops.translate_x_rel, 150 / 331, **_NEAREST),
    "translate_y": _signed(timm_ops.translate_y_rel, 150 / 331, **_NEAREST),
    "rotate": lambda image, level, _: timm_ops.rotate(image, 30 * level, **_NEAREST),
    "color": _signed(timm_ops.color, 0.9, 1),
    "contrast": _signed(timm_ops.contrast, 0.9, 1),
    "sharpness": _signed(timm_ops.sharpness, 0.9, 1),
    "brightness": _signed(timm_ops.brightness, 0.9, 1),
    "posterize": lambda image, level, _: timm_ops.posterize(image, round(8 - 4 * level)),
    "solarize": lambda image, level, _: timm_ops.solarize(image, 256 - 256 * level),
    "autocontrast": lambda image, *_: timm_ops.auto_contrast(image),
    "equalize": lambda image, *_: timm_ops.equalize(image),
    "invert": lambda image, *_: timm_ops.invert(image),
}

POLICY = """
invert 0.1 0, contrast 0.2 6
rotate 0.7 2, translate_x 0.3 9
sharpness 0.8 1, sharpness 0.9 3
shear_y 0.5 8, translate_y 0.7 9
autocontrast 0.5 0, equalize 0.9 0
shear_y 0.2 7, posterize 0.3 7
color 0.4 3, brightness 0.6 7
sharpness 0.3 9, brightness 0.7 9
equalize 0.6 0, equalize 0.5 0
contrast 0.6 7, sharpness 0.6 5
color 0.7 7, translate_x 0.5 8
equalize 0.3 0, autocontrast 0.4 0
translate_y 0.4 3, sharpness 0.2 6
brightness 0.9 6, color 0.2 8
solarize 0.5 2, invert 0.0 0
equalize 0.2 0, autocontrast 0.6 0
equalize 0.2 0, equalize 0.6 0
color 0.9 9, equalize 0.6 0
autocontrast 0.8 0, solarize 0.2 8
brightness 0.1 3, color 0.7 0
solarize 0.4 5, autocontrast 0.9 0
translate_y 0.9 9, translate_y 0.7 9
autocontrast 0.9 0, solarize 0.8 3
equalize 0.8 0, invert 0.1 0
translate_y 0.7 9, autocontrast 0.9 0
"""
"""25 pairs of operation, probability and level in ninths; one pair is drawn per image."""

_PAIRS = [[each.split() for each in line.split(", ")] for line in POLICY.split("\n") if line]


def official_policy(image: Tensor, seed: int) -> Tensor:
    """Return ``image``, uint8 [3, H, W], changed by the policy; ``seed`` fixes the draws, in the official order."""
    draw, changed = Random(seed), Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy()))
    for name, probability, level in _PAIRS[draw.randint(0, len(_PAIRS) - 1)]:
        if draw.random() < float(probability):
            changed = OPERATIONS[name](changed, int(level) / 9, draw)
    return torch.from_numpy(np.array(changed)).permute(2, 0, 1)

"""Transforms from one PIL image to the square that a model sees: a random crop for training, a center crop otherwise.

Pillow does the resizing, as for the published ImageNet accuracies. The random crop is torchvision's, or timm's if the
interpolation is random too; RandAugment (Cubuk et al. 2020) is timm's.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torchvision.transforms import v2

from dkl.errors import UserError

Transform = Callable[[Image.Image], Image.Image]


def randaugment(policy: str, size: int) -> Transform:
    """Return timm's RandAugment for images of ``size``² pixels, by a ``policy`` such as ``rand-m7-mstd0.5``.

    Pixels that a transform uncovers get ImageNet's mean color. Raises UserError if timm does not know the policy.
    """
    settings = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(round(255 * mean) for mean in IMAGENET_DEFAULT_MEAN),
    }
    try:
        return rand_augment_transform(policy, settings)
    except (AssertionError, ValueError, KeyError):
        raise UserError(
            f"data.augment.randaugment={policy} is not a policy of timm: use one such as rand-m7-mstd0.5, or null"
        ) from None


TRAINING_INTERPOLATIONS = ("bilinear", "random")

INTERPOLATIONS = {"bilinear": v2.InterpolationMode.BILINEAR, "bicubic": v2.InterpolationMode.BICUBIC}


def random_crop(size: int, *, flip: bool, policy: str | None = None, interpolation: str = "bilinear") -> Transform:
    """Crop 8 to 100 % of the area at an aspect ratio of 3:4 to 4:3, and resize the crop to ``size``² pixels.

    Resizing is bilinear or, with ``interpolation`` random, bilinear or bicubic for each image. With ``flip`` half of
    the crops are mirrored. With a ``policy`` RandAugment follows.
    """
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    change = [randaugment(policy, size)] if policy else []
    random_resizing = interpolation == "random"
    crop = (
        RandomResizedCropAndInterpolation(size, interpolation="random")
        if random_resizing
        else v2.RandomResizedCrop(size)
    )
    return v2.Compose([crop, *mirror, *change])


class Center(NamedTuple):
    """What tests see of an image: this ``share`` of the shorter side, resized by ``interpolation``."""

    share: float = 0.875
    interpolation: str = "bilinear"


USUAL_CENTER = Center()


def center_crop(size: int, center: Center = USUAL_CENTER) -> Transform:
    """Resize the shorter side to ``size`` / share (256 for 224 at 0.875), and crop the central ``size``² pixels."""
    resize = v2.Resize(math.floor(size / center.share), INTERPOLATIONS[center.interpolation])
    return v2.Compose([resize, v2.CenterCrop(size)])

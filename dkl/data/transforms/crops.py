"""From an image to the square that a model sees: a random crop for training, the middle for validation.

Resized by Pillow, as the published ImageNet accuracies were; drawn by torchvision's transforms, and changed
by timm's RandAugment (Cubuk et al. 2020) where it is asked for.
"""

from collections.abc import Callable
from typing import Any

from timm.data import IMAGENET_DEFAULT_MEAN, rand_augment_transform
from torchvision.transforms import v2

from dkl.errors import UserError

Transform = Callable[[Any], Any]


def randaugment(policy: str, size: int) -> Transform:
    """timm's RandAugment for squares of ``size``, by a ``policy`` such as ``rand-m7-mstd0.5``; what an image is moved
    away from takes ImageNet's mean colour. Raises UserError where timm does not know the policy."""
    settings = {
        "translate_const": int(size * 0.45),
        "img_mean": tuple(round(255 * mean) for mean in IMAGENET_DEFAULT_MEAN),
    }
    try:
        return rand_augment_transform(policy, settings)
    except (AssertionError, ValueError, KeyError):
        raise UserError(
            f"data.augment.randaugment={policy}: timm knows no such policy; write one such as rand-m7-mstd0.5, or null"
        ) from None


def random_crop(size: int, *, flip: bool, policy: str | None = None) -> Transform:
    """A crop of 8 to 100 % of the area at 3:4 to 4:3, resized to ``size``, mirrored with probability ½ where ``flip``,
    and changed by RandAugment where there is a ``policy``."""
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    change = [randaugment(policy, size)] if policy else []
    return v2.Compose([v2.RandomResizedCrop(size), *mirror, *change])


def middle_crop(size: int) -> Transform:
    """The shorter side resized to ``size`` / 0.875 (256 for 224), and the middle of it."""
    return v2.Compose([v2.Resize(size * 8 // 7), v2.CenterCrop(size)])

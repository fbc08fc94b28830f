"""Transforms from one PIL image to the square that a model sees: a random crop for training, a center crop otherwise.

Pillow does the resizing, as for the published ImageNet accuracies. The random crop is torchvision's; RandAugment
(Cubuk et al. 2020) is timm's.
"""

from collections.abc import Callable

from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, rand_augment_transform
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


def random_crop(size: int, *, flip: bool, policy: str | None = None) -> Transform:
    """Crop 8 to 100 % of the area at an aspect ratio of 3:4 to 4:3, and resize the crop to ``size``² pixels.

    With ``flip`` half of the crops are mirrored. With a ``policy`` RandAugment follows.
    """
    mirror = [v2.RandomHorizontalFlip()] if flip else []
    change = [randaugment(policy, size)] if policy else []
    return v2.Compose([v2.RandomResizedCrop(size), *mirror, *change])


def center_crop(size: int) -> Transform:
    """Resize the shorter side to ``size`` / 0.875 (256 for 224), and crop the central ``size``² pixels."""
    return v2.Compose([v2.Resize(size * 8 // 7), v2.CenterCrop(size)])

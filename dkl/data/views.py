"""Views that are made image by image: CIFAR-10's AutoAugment policies, and the strong view of FixMatch.

Each image is cropped, mirrored and rotated first, and then changed by a function of the image and a seed. A seed per
image makes the views independent of the worker processes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from timm.data import auto_augment as timm_ops
from torch import Tensor
from torchvision.transforms import AutoAugmentPolicy
from torchvision.transforms.v2 import AutoAugment

from dkl.config.schema import UnlabeledConfig
from dkl.data.augment import Augment
from dkl.data.planning import BatchPlan
from dkl.data.seeding import seed_global
from dkl.errors import UserError
from dkl.validation import check_fields

Change = Callable[[Tensor, int], Tensor]
"""An image, uint8 [C, H, W], and a seed -> the changed image."""

POLICY_GRAY = (128, 128, 128)
"""Color of the pixels that a policy uncovers."""
HOLE_GRAY = (125, 123, 114)
"""Color of the strong view's hole: CIFAR's mean."""


def changed_views(images: Tensor, augment: Augment, change: Change, plan: BatchPlan) -> Tensor:
    """The second view of a plan, uint8 [n, C, H, W] on the CPU: ``augment`` first, then ``change``.

    ``change`` may draw from the global generators; the caller must preserve them.
    """
    assert plan.second is not None
    assert plan.seeds is not None
    windows = augment.windows(images[plan.chosen])
    views = augment.apply(windows, torch.arange(len(windows)), plan.second)
    return torch.stack([change(*pair) for pair in zip(views, plan.seeds.tolist(), strict=True)])


def _to_pil(image: Tensor) -> Image.Image:
    """``image``, uint8 [C, H, W] with 1 or 3 channels, for Pillow."""
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(np.ascontiguousarray(pixels if len(image) == 3 else pixels[..., 0]))


def _to_tensor(image: Image.Image) -> Tensor:
    """``image`` as uint8 [C, H, W]."""
    return torch.from_numpy(np.array(image)).view(image.height, image.width, -1).permute(2, 0, 1)


def torchvision_policy(image: Tensor, seed: int) -> Tensor:
    """Return ``image``, uint8 [3, H, W], changed by torchvision's policy, which draws from torch's global generator."""
    seed_global(seed)
    return AutoAugment(AutoAugmentPolicy.CIFAR10, fill=list(POLICY_GRAY))(image)


_BICUBIC: dict[str, Any] = {"resample": Image.Resampling.BICUBIC, "fillcolor": POLICY_GRAY}
_NEAREST: dict[str, Any] = {"resample": Image.Resampling.NEAREST, "fillcolor": POLICY_GRAY}

PolicyOperation = Callable[[Image.Image, float, Random], Image.Image]
"""An image, the level in 0, 1/9, …, 1 and the source of a random sign -> the changed image."""


def _signed(change: Callable[..., Image.Image], largest: float, base: float = 0, **settings: Any) -> PolicyOperation:
    """``change`` by ``base`` plus or minus a share of ``largest``."""
    return lambda image, level, draw: change(image, base + largest * level * draw.choice([-1, 1]), **settings)


POLICY_OPERATIONS: dict[str, PolicyOperation] = {
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

_PAIRS = [[operation.split() for operation in line.split(", ")] for line in POLICY.split("\n") if line]


def official_policy(image: Tensor, seed: int) -> Tensor:
    """Return ``image``, uint8 [3, H, W], changed by the policy as the official training computes it.

    It differs from torchvision's on tensors: shears are bicubic and not to the nearest pixel; translations are not
    rounded to whole pixels first (15 and 13 pixels of 32 instead of 14 and 12); the rotation is always
    counterclockwise; and Pillow computes colors. ``seed`` fixes the draws, in the official order. Source:
    jiequancui/DKL, autoaug.py, ``CIFAR10Policy`` (Cubuk et al. 2019).
    """
    draw, changed = Random(seed), _to_pil(image)
    for name, probability, level in _PAIRS[draw.randint(0, len(_PAIRS) - 1)]:
        if draw.random() < float(probability):
            changed = POLICY_OPERATIONS[name](changed, int(level) / 9, draw)
    return _to_tensor(changed)


POLICY_CHANGES: dict[str, Change] = {"official_autoaugment": official_policy, "autoaugment": torchvision_policy}
"""Second view that is changed image by image -> its change."""


def _moved(change: Callable[..., Image.Image]) -> Callable[[Image.Image, float], Image.Image]:
    """``change`` to the nearest pixel; uncovered pixels are black."""
    return lambda image, strength: change(image, strength, resample=Image.Resampling.NEAREST, fillcolor=None)


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
"""Operation of the strong view, computed by timm -> function of image and strength, and the range of the strength."""


@dataclass(kw_only=True)
class StrongView(UnlabeledConfig):
    """The strong view of FixMatch (Sohn et al. 2020), by the settings of ``data.unlabeled``; a seed fixes it.

    As in USB, ``operations`` are drawn with replacement from 14, each with a strength uniform in its range, and applied
    with ``probability``; RandAugment's usual magnitude has no part in it. Then a gray hole is cut, whose side is
    uniform between the shares ``smallest_hole`` and ``largest_hole`` of the image's width.

    Raises UserError if a setting is out of range.
    """

    def __post_init__(self) -> None:
        check_fields(self, "data.unlabeled")
        if self.smallest_hole > self.largest_hole:
            raise UserError(
                f"data.unlabeled.smallest_hole={self.smallest_hole} and data.unlabeled.largest_hole={self.largest_hole}"
                " must lie in [0, 1], the smallest first"
            )

    def __call__(self, image: Tensor, seed: int) -> Tensor:
        """Return the strong view of ``image``, uint8 [C, H, W] with 1 or 3 channels."""
        draw, changed, known = np.random.default_rng(seed), _to_pil(image), tuple(OPERATIONS.values())
        for number in draw.integers(len(known), size=self.operations):
            change, low, high = known[number]
            strength, applied = draw.uniform(low, high), draw.random() < self.probability
            changed = change(changed, strength) if applied else changed
        side = draw.uniform(self.smallest_hole, self.largest_hole) * changed.width
        if side > 0:
            changed = cut_hole(changed, side, draw.uniform(0, changed.width), draw.uniform(0, changed.height))
        return _to_tensor(changed)


def cut_hole(image: Image.Image, side: float, x: float, y: float) -> Image.Image:
    """Fill a square of ``side`` pixels around (``x``, ``y``) with gray, as USB does: clipped, both edges included."""
    left, top = int(max(0, x - side / 2)), int(max(0, y - side / 2))
    box = (left, top, min(image.width, left + side), min(image.height, top + side))
    image = image.copy()
    color = HOLE_GRAY if image.mode == "RGB" else round(sum(HOLE_GRAY) / len(HOLE_GRAY))
    ImageDraw.Draw(image).rectangle(box, color)
    return image

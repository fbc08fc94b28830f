"""Augmentation: its settings, batches of tensors without a loop over images, and crops of one decoded image.

Random choices (``Draw``) are made apart from the pixels, so that every process can draw the same choices for the whole
batch and change only its own share.

Pillow resizes decoded images, as for the published ImageNet accuracies. Their random crop is torchvision's, or timm's
if the interpolation is random too; RandAugment (Cubuk et al. 2020) is timm's.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, rand_augment_transform
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torchvision.transforms import v2

from dkl.config.schema import AugmentConfig
from dkl.data.seeding import preserved_global_rng, seed_global
from dkl.errors import UserError
from dkl.validation import check_fields

CROP_FILLS = ("zeros", "reflect")
TRAINING_INTERPOLATIONS = ("bilinear", "random")

SECOND_VIEW_CUTOUT = {"official_autoaugment": 0, "autoaugment": 0, "cutout": 16}
"""Hole size in pixels, by the kind of second view."""
POLICIES = ("official_autoaugment", "autoaugment")
"""Second views that are changed image by image."""

BATCHWISE = ("crop_padding", "crop_fill", "flip", "rotation", "cutout")
USABLE = {
    "images in memory": (*BATCHWISE, "transforms", "second_view", "repeats"),
    "images in memory beside data.synthetic.files": (*BATCHWISE, "transforms"),
    "images of semi-supervised training": BATCHWISE,
    "images read from files": ("flip", "randaugment", "interpolation", "repeats", "transforms"),
    "images with masks": ("flip", "scale", "rotation", "unrotated", "blur"),
}
"""Kind of images -> the settings that change them."""


class Draw(NamedTuple):
    """Random choices for B images; a field is None if the augmentation does not have that step."""

    offsets: Tensor | None  # [2, B], crop offsets down and right
    mirrored: Tensor | None  # [B], bool
    degrees: Tensor | None  # [B], counterclockwise
    hole: Tensor | None  # [2, B], first row and column of the hole; negative if the border clips it

    def share(self, part: slice) -> "Draw":
        """The choices for the images in ``part``."""
        return Draw(*(None if values is None else values[..., part] for values in self))


@dataclass(kw_only=True)
class Augment(AugmentConfig):
    """The settings of ``data.augment``, at work. Raises UserError if a value is out of range.

    Batches in memory are changed in this order: ``crop_padding``, ``flip``, ``rotation`` (nearest pixel, zeros outside
    the image), ``cutout`` (DeVries and Taylor 2017, clipped at the border). The ``second_view`` has its own crop, flip
    and rotation. AutoAugment then changes it by CIFAR-10's policy, computed as in the official code
    (``official_autoaugment``) or by torchvision (``autoaugment``); ``cutout`` cuts a hole of 16 pixels.

    ``transforms`` follow, image by image and in both views: callables such as those of torchvision's v2, which take an
    image, uint8 ``[C, H, W]``, and return one. They may draw from the global generators, which are seeded per image.

    ``dkl.data.joint`` changes images with masks.
    """

    def __post_init__(self) -> None:
        check_fields(self, "data.augment")
        if self.crop_fill not in CROP_FILLS:
            raise UserError(f"data.augment.crop_fill={self.crop_fill} must be zeros or reflect")
        if self.scale and not (len(self.scale) == 2 and self.scale[0] <= self.scale[1]):
            raise UserError(f"data.augment.scale={list(self.scale)} must be two factors, the smaller first, or []")
        if self.second_view is not None and self.second_view not in SECOND_VIEW_CUTOUT:
            known = ", ".join(SECOND_VIEW_CUTOUT)
            raise UserError(f"data.augment.second_view={self.second_view} is unknown: use {known} or null")
        if self.interpolation not in TRAINING_INTERPOLATIONS:
            raise UserError(f"data.augment.interpolation={self.interpolation} must be bilinear or random")
        if wrong := [transform for transform in self.transforms if not callable(transform)]:
            raise UserError(
                f"data.augment.transforms holds {wrong[0]!r}, which takes no image: name a class of transforms"
            )
        if self.randaugment is not None:
            randaugment(self.randaugment, 224)  # raises on an unknown policy

    @property
    def second(self) -> "Augment | None":
        """The settings of the second view without its AutoAugment policy; None without a second view."""
        if self.second_view is None:
            return None
        return replace(self, cutout=SECOND_VIEW_CUTOUT[self.second_view], second_view=None)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError if images of ``shape`` (C, H, W) do not allow these settings."""
        hole = max(self.cutout, SECOND_VIEW_CUTOUT.get(self.second_view or "", 0))
        if hole >= min(shape[1:]):
            key = f"cutout={hole}" if self.cutout == hole else f"second_view={self.second_view}"
            raise UserError(
                f"data.augment.{key} cuts a hole of {hole} pixels, which covers images of {list(shape[1:])}: remove it"
            )
        if self.crop_fill == "reflect" and self.crop_padding >= min(shape[1:]):
            raise UserError(
                f"data.augment.crop_padding={self.crop_padding} cannot mirror images of {list(shape[1:])}: lower it, "
                "or set data.augment.crop_fill=zeros"
            )
        if self.second_view in POLICIES and shape[0] != 3:
            raise UserError(
                f"data.augment.second_view={self.second_view} needs 3 channels, not {shape[0]}: use cutout or null"
            )

    def check_kind(self, kind: str) -> None:
        """Raise UserError if a setting does nothing for this ``kind`` of images, one of ``USABLE``."""
        plain = Augment()
        names = [field.name for field in fields(self) if field.name not in USABLE[kind]]
        useless = [name for name in names if getattr(self, name) != getattr(plain, name)]
        if useless:
            given, fixed = (
                ", ".join(f"data.augment.{name}={'null' if value is None else value}" for name, value in values.items())
                for values in ({name: getattr(settings, name) for name in useless} for settings in (self, plain))
            )
            raise UserError(f"{given} does not change {kind}, which allow {', '.join(USABLE[kind])} only: set {fixed}")

    def draw(self, count: int, size: Sequence[int], generator: torch.Generator) -> Draw:
        """Draw the random choices for ``count`` images of ``size`` (H, W) from a CPU ``generator``."""
        # The order of the draws is part of the reproducible result: do not change it.
        offsets = mirrored = degrees = hole = None
        if self.crop_padding:
            offsets = torch.randint(2 * self.crop_padding + 1, (2, count), generator=generator)
        if self.flip:
            mirrored = torch.rand(count, generator=generator) < 0.5
        if self.rotation:
            degrees = (2 * torch.rand(count, generator=generator) - 1) * self.rotation
        if self.cutout:
            hole = torch.stack([torch.randint(side, (count,), generator=generator) for side in size])
            hole -= self.cutout // 2
        return Draw(offsets, mirrored, degrees, hole)

    def windows(self, images: Tensor) -> Tensor:
        """Return all crops of ``images[N, C, H, W]`` as a view [N, C, 2·pad + 1, 2·pad + 1, H, W] of the padded images.

        Indexing this view with one offset per image crops a whole batch in a single gather.
        """
        pad, (height, width) = self.crop_padding, images.shape[-2:]
        if self.crop_fill == "reflect":
            padded = images[:, :, _mirrored(height, pad, images.device)][..., _mirrored(width, pad, images.device)]
        else:
            padded = F.pad(images, (pad, pad, pad, pad))
        return padded.unfold(2, height, 1).unfold(3, width, 1)

    def apply(self, windows: Tensor, index: Tensor, draw: Draw) -> Tensor:
        """Change the images at ``index`` by ``draw``: uint8 [len(index), C, H, W] on the device of ``windows``."""
        device, pad = windows.device, self.crop_padding
        if draw.offsets is None:
            images = windows[index, :, pad, pad]
        else:
            down, right = draw.offsets.to(device, non_blocking=True)
            images = windows[index, :, down, right]
        if draw.mirrored is not None:
            mirrored = draw.mirrored.nonzero().squeeze(1).to(device, non_blocking=True)
            images[mirrored] = images[mirrored].flip(-1)
        if draw.degrees is not None:
            images = rotate(images, draw.degrees.to(device, non_blocking=True))
        if draw.hole is not None:
            spans = []  # of the rows and of the columns that are cut, [B, side]
            for first, side in zip(draw.hole.to(device, non_blocking=True), images.shape[-2:], strict=True):
                place = torch.arange(side, device=device) - first[:, None]
                spans.append((place >= 0) & (place < self.cutout))
            images.masked_fill_(spans[0][:, None, :, None] & spans[1][:, None, None, :], 0)
        return images

    def transformed(self, images: Tensor, seeds: Tensor) -> Tensor:
        """Return ``images[B, C, H, W]`` after the user's ``transforms``, with a seed per image, ``seeds[B]``.

        Raises UserError if one does not return an image like the one that it got.
        """
        changed = []
        with preserved_global_rng():
            for image, seed in zip(images, seeds.tolist(), strict=True):
                seed_global(seed)
                changed.append(self.transform(image))
        return torch.stack(changed)

    def transform(self, image: Tensor) -> Tensor:
        """One image, uint8 ``[C, H, W]``, after the user's ``transforms``."""
        for number, transform in enumerate(self.transforms):
            changed = transform(image)
            if not isinstance(changed, Tensor) or (changed.dtype, changed.shape) != (image.dtype, image.shape):
                given = (
                    f"{changed.dtype} {list(changed.shape)}" if isinstance(changed, Tensor) else type(changed).__name__
                )
                raise UserError(
                    f"data.augment.transforms[{number}] must return uint8 images {list(image.shape)}, not {given}"
                )
            image = changed
        return image


def _mirrored(side: int, pad: int, device: torch.device) -> Tensor:
    """Positions ``[side + 2·pad]`` in a row of ``side`` pixels that is mirrored at its ends, without repeating them."""
    # torch reflects no bytes on a CPU, so the padding is gathered.
    place = torch.arange(-pad, side + pad, device=device).abs()
    return side - 1 - (side - 1 - place).abs()


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Rotate each of ``images[B, C, H, W]`` counterclockwise about its center by its ``degrees[B]``."""
    height, width = images.shape[-2:]
    angle = (degrees * (math.pi / 180)).view(-1, 1, 1)
    right = torch.arange(width, device=images.device) - (width - 1) / 2  # distance from the center
    down = (torch.arange(height, device=images.device) - (height - 1) / 2).unsqueeze(1)
    # For each target pixel, the source pixel is found by the inverse rotation; grid_sample wants it in [-1, 1].
    source = [angle.cos() * right - angle.sin() * down, angle.sin() * right + angle.cos() * down]
    grid = torch.stack([source[0] * (2 / width), source[1] * (2 / height)], -1)
    turned = F.grid_sample(images.to(grid.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return turned.to(images.dtype)


Transform = Callable[[Image.Image], Image.Image]

INTERPOLATIONS = {
    "bilinear": v2.InterpolationMode.BILINEAR,
    "bicubic": v2.InterpolationMode.BICUBIC,
    "square": v2.InterpolationMode.BILINEAR,
}


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


def random_crop(size: int, augment: Augment) -> Transform:
    """Crop 8 to 100 % of the area at an aspect ratio of 3:4 to 4:3, and resize the crop to ``size``² pixels.

    Resizing is bilinear or, with ``augment.interpolation`` random, bilinear or bicubic for each image. With ``flip``
    half of the crops are mirrored. RandAugment follows if there is a policy.
    """
    crop = v2.RandomResizedCrop(size)
    if augment.interpolation == "random":
        crop = RandomResizedCropAndInterpolation(size, interpolation="random")
    mirror = [v2.RandomHorizontalFlip()] if augment.flip else []
    change = [randaugment(augment.randaugment, size)] if augment.randaugment else []
    own = [v2.PILToTensor(), augment.transform, v2.ToPILImage()] if augment.transforms else []
    return v2.Compose([crop, *mirror, *change, *own])


class Center(NamedTuple):
    """What tests see of an image: this ``share`` of the shorter side, resized by ``interpolation``.

    ``square`` resizes both sides bilinearly to the size that is seen, and ``none`` only crops the center.
    """

    share: float = 0.875
    interpolation: str = "bilinear"


USUAL_CENTER = Center()


def center_crop(size: int, center: Center = USUAL_CENTER) -> Transform:
    """Resize the shorter side to ``size`` / share (256 for 224 at 0.875), and crop the central ``size``² pixels."""
    if center.interpolation == "none":
        return v2.CenterCrop(size)
    sides = [size, size] if center.interpolation == "square" else [math.floor(size / center.share)]
    return v2.Compose([v2.Resize(sides, INTERPOLATIONS[center.interpolation]), v2.CenterCrop(size)])

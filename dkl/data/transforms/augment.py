"""Augmentation of image batches without a loop over images: random crop, flip, rotation and cutout.

Random choices (``Draw``) are made apart from the pixels, so that every process can draw the same choices for the whole
batch and change only its own share.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.data.transforms.pil_image import TRAINING_INTERPOLATIONS, randaugment
from dkl.errors import UserError
from dkl.validation import DEGREES, PIXELS, REPEATS, SCALE, SHARE, check_fields

CROP_FILLS = ("zeros", "reflect")

SECOND_VIEW_CUTOUT = {"official_autoaugment": 0, "autoaugment": 0, "cutout": 16}
"""Hole size in pixels, by the kind of second view."""
POLICIES = ("official_autoaugment", "autoaugment")
"""Second views that are changed image by image."""


class Draw(NamedTuple):
    """Random choices for B images; a field is None if the augmentation does not have that step."""

    offsets: Tensor | None  # [2, B], crop offsets down and right
    mirrored: Tensor | None  # [B], bool
    degrees: Tensor | None  # [B], counterclockwise
    hole: Tensor | None  # [2, B], first row and column of the hole; negative if the border clips it

    def share(self, part: slice) -> "Draw":
        """The choices for the images in ``part``."""
        return Draw(*(None if values is None else values[..., part] for values in self))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """Augmentation settings, applied in the order of the first four. Raises UserError if a value is out of range.

    ``crop_padding``: pad by this many pixels and crop back to the original size at a uniform offset. ``crop_fill``
    says what the padding is: ``zeros``, or ``reflect`` for the image mirrored at its border.
    ``flip``: mirror with probability ½.
    ``rotation``: rotate by a uniform angle up to ± this many degrees; nearest pixel, zeros outside the image.
    ``cutout``: set a square of this side to zero, around a uniform pixel and clipped at the border (DeVries and
    Taylor 2017).

    ``second_view``: add a second view of each image, with its own crop, flip and rotation, then changed by CIFAR-10's
    AutoAugment policy (``official_autoaugment`` computes it as the official code, ``autoaugment`` is torchvision's) or
    by a hole of 16 pixels (``cutout``).
    ``randaugment``: a RandAugment policy of timm, for images read from files. ``interpolation``: how their crops are
    resized, ``bilinear``, or ``random`` for one of bilinear and bicubic.
    ``repeats``: show each image this many times, augmented differently, and fewer images per epoch.

    For images with masks (``dkl.data.transforms.joint``): ``scale`` resizes by a uniform factor between its two values
    (empty: not at all), ``unrotated`` is the share of images that ``rotation`` leaves alone, and ``blur`` the share
    that is blurred.
    """

    crop_padding: Annotated[int, PIXELS] = 0
    crop_fill: str = "zeros"
    flip: bool = False
    rotation: Annotated[float, DEGREES] = 0.0
    cutout: Annotated[int, PIXELS] = 0
    second_view: str | None = None
    randaugment: str | None = None
    interpolation: str = "bilinear"
    repeats: Annotated[int, REPEATS] = 1
    scale: Annotated[Sequence[float], SCALE] = ()
    unrotated: Annotated[float, SHARE] = 0.0
    blur: Annotated[float, SHARE] = 0.0

    def __post_init__(self) -> None:
        check_fields(self, "data.augment")
        if self.crop_fill not in CROP_FILLS:
            raise UserError(f"data.augment.crop_fill={self.crop_fill} must be zeros or reflect")
        object.__setattr__(self, "scale", tuple(self.scale))
        if self.scale and not (len(self.scale) == 2 and self.scale[0] <= self.scale[1]):
            raise UserError(f"data.augment.scale={list(self.scale)} must be two factors, the smaller first, or []")
        if self.second_view is not None and self.second_view not in SECOND_VIEW_CUTOUT:
            known = ", ".join(SECOND_VIEW_CUTOUT)
            raise UserError(f"data.augment.second_view={self.second_view} is unknown: use {known} or null")
        if self.interpolation not in TRAINING_INTERPOLATIONS:
            raise UserError(f"data.augment.interpolation={self.interpolation} must be bilinear or random")
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

    def check_no_masks(self) -> None:
        """Raise UserError if a setting is for images with masks only."""
        if self.scale or self.unrotated or self.blur:
            raise UserError(
                "data.augment.scale, unrotated and blur change images with masks: set scale=[], unrotated=0 and blur=0"
            )

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draw:
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
            images.masked_fill_(_hole_mask(draw.hole.to(device, non_blocking=True), self.cutout, images), 0)
        return images


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


def _hole_mask(start: Tensor, length: int, images: Tensor) -> Tensor:
    """Mask [B, 1, H, W] of squares of side ``length`` whose first row and column are ``start[2, B]``."""
    spans = []
    for first, side in zip(start, images.shape[-2:], strict=True):
        place = torch.arange(side, device=start.device) - first[:, None]
        spans.append((place >= 0) & (place < length))
    return (spans[0][:, None, :, None]) & (spans[1][:, None, None, :])

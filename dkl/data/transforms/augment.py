"""Random changes of image batches: crop, mirroring, rotation and a square hole, without a loop over samples.

What chance decides (``Draw``) is apart from what is done to pixels, so that several processes can draw alike and each
change its own share only.
"""

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dkl.data.transforms.crops import randaugment
from dkl.errors import UserError

SECOND_VIEWS = {"autoaugment": 0, "cutout": 16}  # pixels of the hole that each cuts


class Draw(NamedTuple):
    """What chance decided for B images; None where the augmentation has no such part."""

    offsets: Tensor | None  # [2, B], down and right
    mirrored: Tensor | None  # [B], bool
    degrees: Tensor | None  # [B], counter-clockwise
    hole: Tensor | None  # [2, B], first row and first column, negative where the border clips it

    def share(self, part: slice) -> "Draw":
        """That of some of the images."""
        return Draw(*(None if values is None else values[..., part] for values in self))


@dataclass(frozen=True, kw_only=True)
class Augment:
    """In this order: zero-pad by ``crop_padding`` and crop back at a uniform offset; mirror with probability ½ where
    ``flip``; rotate by up to ±``rotation`` degrees, nearest pixel, zeros outside; cut a hole of ``cutout`` pixels
    around a uniform pixel, clipped at the border (DeVries and Taylor 2017).

    ``second_view`` adds another draw of crop, mirroring and rotation, changed by CIFAR-10's AutoAugment
    (``autoaugment``) or with a hole of 16 pixels (``cutout``). ``randaugment`` is a policy of timm's, for images read
    from files. With ``repeats`` an epoch shows fewer images, each so many times, drawn anew. Raises UserError where a
    value makes no sense.
    """

    crop_padding: int = 0
    flip: bool = False
    rotation: float = 0.0
    cutout: int = 0
    second_view: str | None = None
    randaugment: str | None = None
    repeats: int = 1

    def __post_init__(self) -> None:
        for key in ("crop_padding", "cutout"):
            if getattr(self, key) < 0:
                raise UserError(f"data.augment.{key}={getattr(self, key)}: it must be at least 0, which is none")
        if not 0 <= self.rotation <= 180:
            raise UserError(f"data.augment.rotation={self.rotation}: it must be between 0 and 180 degrees")
        if self.second_view is not None and self.second_view not in SECOND_VIEWS:
            known = ", ".join(SECOND_VIEWS)
            raise UserError(f"data.augment.second_view={self.second_view}: choose {known} or null")
        if self.randaugment is not None:
            randaugment(self.randaugment, 224)
        if self.repeats < 1:
            raise UserError(f"data.augment.repeats={self.repeats}: it must be at least 1, which shows every image once")

    @property
    def second(self) -> "Augment | None":
        """What is drawn for the second view, AutoAugment apart."""
        if self.second_view is None:
            return None
        return replace(self, cutout=SECOND_VIEWS[self.second_view], second_view=None)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise UserError where images of ``shape`` (C, H, W) cannot be changed so."""
        hole = max(self.cutout, SECOND_VIEWS.get(self.second_view or "", 0))
        if hole >= min(shape[1:]):
            key = f"cutout={hole}" if self.cutout == hole else f"second_view={self.second_view}"
            raise UserError(f"data.augment.{key}: a hole of {hole} pixels is all of images {list(shape[1:])}; leave it")
        if self.second_view == "autoaugment" and shape[0] != 3:
            raise UserError(
                f"data.augment.second_view=autoaugment needs 3 channels, not {shape[0]}: use cutout or null"
            )

    def draw(self, count: int, size: tuple[int, int], generator: torch.Generator) -> Draw:
        """For ``count`` images of ``size`` (H, W), from ``generator`` on the CPU."""
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
        """All crops of ``images[N, C, H, W]``: a view [N, C, 2·pad + 1, 2·pad + 1, H, W] of the padded ones."""
        pad, (height, width) = self.crop_padding, images.shape[-2:]
        return F.pad(images, (pad, pad, pad, pad)).unfold(2, height, 1).unfold(3, width, 1)

    def apply(self, windows: Tensor, index: Tensor, draw: Draw) -> Tensor:
        """uint8 images [len(index), C, H, W]: those at ``index`` on the device of ``windows``, changed by ``draw``."""
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
            images.masked_fill_(_inside(draw.hole.to(device, non_blocking=True), self.cutout, images), 0)
        return images


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """``images[B, C, H, W]`` each turned counter-clockwise about its centre by its ``degrees[B]``."""
    height, width = images.shape[-2:]
    angle = (degrees * (math.pi / 180)).view(-1, 1, 1)
    right = torch.arange(width, device=images.device) - (width - 1) / 2  # from the centre
    down = (torch.arange(height, device=images.device) - (height - 1) / 2).unsqueeze(1)
    source = [angle.cos() * right - angle.sin() * down, angle.sin() * right + angle.cos() * down]
    grid = torch.stack([source[0] * (2 / width), source[1] * (2 / height)], -1)
    turned = F.grid_sample(images.to(grid.dtype), grid, mode="nearest", padding_mode="zeros", align_corners=False)
    return turned.to(images.dtype)


def _inside(start: Tensor, length: int, images: Tensor) -> Tensor:
    """Mask [B, 1, H, W] of squares of ``length`` pixels whose first row and column are ``start[2, B]``."""
    spans = []
    for first, side in zip(start, images.shape[-2:], strict=True):
        place = torch.arange(side, device=start.device) - first[:, None]
        spans.append((place >= 0) & (place < length))
    return (spans[0][:, None, :, None]) & (spans[1][:, None, None, :])

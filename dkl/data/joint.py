"""Random changes of an image together with its mask, in the order of semseg and APD.

    scale → rotate → blur (image only) → mirror → crop, padded if the image is smaller

Pixels around the image have the fill color and the ignore value. Images are interpolated bilinearly, masks take the
nearest pixel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as T

from dkl.data.augment import Augment

BLUR_SIZE, BLUR_SIGMA = 5, 1.1
"""Kernel of the blur, in pixels; OpenCV's sigma for this size."""


class JointDraw(NamedTuple):
    """The random choices for one image; ``top`` and ``left`` are the crop's place, as shares of the room in [0, 1)."""

    scale: float
    degrees: float
    blurred: bool
    mirrored: bool
    top: float
    left: float


def draw_joint(augment: Augment, generator: torch.Generator) -> JointDraw:
    """Draw the choices for one image."""
    # All numbers are drawn whatever is switched on, so that a switch does not change the other choices.
    scale, rotate, degrees, blur, mirror, top, left = torch.rand(7, generator=generator, dtype=torch.float64).tolist()
    low, high = augment.scale or (1.0, 1.0)
    return JointDraw(
        scale=low + (high - low) * scale,
        degrees=(2 * degrees - 1) * augment.rotation if rotate >= augment.unrotated else 0.0,
        blurred=blur < augment.blur,
        mirrored=augment.flip and mirror < 0.5,
        top=top,
        left=left,
    )


def change(
    image: Tensor, mask: Tensor, draw: JointDraw, *, size: Sequence[int], fill: tuple[int, int, int], ignore: int
) -> tuple[Tensor, Tensor]:
    """Apply ``draw`` to ``image[3, H, W]``, uint8, and ``mask[H, W]``; both then have ``size``."""
    mask = mask[None]
    if draw.scale != 1:
        sides = [max(round(side * draw.scale), 1) for side in image.shape[1:]]
        image = T.resize(image, sides, InterpolationMode.BILINEAR, antialias=False)
        mask = T.resize(mask, sides, InterpolationMode.NEAREST_EXACT)
    if draw.degrees:
        image = T.rotate(image, draw.degrees, InterpolationMode.BILINEAR, fill=list(fill))
        mask = T.rotate(mask, draw.degrees, InterpolationMode.NEAREST, fill=ignore)
    if draw.blurred:
        image = T.gaussian_blur(image, [BLUR_SIZE, BLUR_SIZE], [BLUR_SIGMA, BLUR_SIGMA])
    if draw.mirrored:
        image, mask = T.horizontal_flip(image), T.horizontal_flip(mask)
    image, mask = padded(image, mask, size, fill=fill, ignore=ignore, centered=True)
    top, left = (
        int(at * (side - cut + 1)) for at, side, cut in zip((draw.top, draw.left), image.shape[1:], size, strict=True)
    )
    return T.crop(image, top, left, *size), T.crop(mask, top, left, *size)[0]


def padded(
    image: Tensor,
    mask: Tensor,
    size: Sequence[int],
    *,
    fill: tuple[int, int, int],
    ignore: int,
    centered: bool = False,
) -> tuple[Tensor, Tensor]:
    """Pad ``image[3, H, W]`` and ``mask[1, H, W]`` to at least ``size``: at the end, or around if ``centered``."""
    missing = [max(wanted - side, 0) for wanted, side in zip(size, image.shape[1:], strict=True)]
    if not any(missing):
        return image, mask
    before = [room // 2 if centered else 0 for room in missing]
    after = [room - first for room, first in zip(missing, before, strict=True)]
    sides = [before[1], before[0], after[1], after[0]]
    return T.pad(image, sides, fill=list(fill)), T.pad(mask, sides, fill=ignore)

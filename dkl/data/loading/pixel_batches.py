"""Batches of images with a label per pixel, made in worker processes."""

import itertools
from dataclasses import replace
from typing import Unpack

import torch
from torch import Tensor
from torch.utils.data import Dataset

from dkl.data.images.labeled_pixels import SegmentationSet
from dkl.data.loading.batch_plan import BatchPlan
from dkl.data.loading.read_batches import LoaderOptions, ReadBatches
from dkl.data.seeding import generator_of
from dkl.data.transforms.augment import Augment
from dkl.data.transforms.joint import change, draw_joint, padded
from dkl.errors import UserError

STRIDE = 32
"""Sides of whole images are padded to a multiple of this, which every usual network takes."""


class _Pairs(Dataset[tuple[Tensor, Tensor] | UserError]):
    """Images and masks indexed by batch plans, or the error of a file that cannot be used."""

    def __init__(self, data: SegmentationSet, augment: Augment | None) -> None:
        self.data, self.augment = data, augment
        height, width = data.largest
        self.whole = (-(-height // STRIDE) * STRIDE, -(-width // STRIDE) * STRIDE)

    def __getitem__(self, plan: BatchPlan) -> tuple[Tensor, Tensor] | UserError:
        seeds = itertools.repeat(0) if plan.seeds is None else plan.seeds.tolist()
        try:
            pairs = [self._pair(index, seed) for index, seed in zip(plan.chosen.tolist(), seeds, strict=False)]
        except UserError as error:  # if raised in a worker, it would arrive wrapped in a traceback
            return error
        images, masks = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(masks)

    def _pair(self, index: int, seed: int) -> tuple[Tensor, Tensor]:
        (image, mask), pixels = self.data.pair(index), self.data.pixels
        if self.augment is None:
            image, mask = padded(image, mask[None], self.whole, fill=pixels.fill, ignore=pixels.ignore_index)
            return image, mask[0]
        draw = draw_joint(self.augment, generator_of(seed))
        return change(image, mask, draw, size=self.data.size, fill=pixels.fill, ignore=pixels.ignore_index)


class PixelBatches(ReadBatches[tuple[Tensor, Tensor]]):
    """Batches of ``data``, whose labels are masks int64 ``[B, H, W]``; ``options`` are those of ``ReadBatches``.

    With ``augment``, images and masks are changed together by its ``scale``, ``rotation``, ``blur`` and ``flip``, and
    cropped to ``data.size``; the draw depends on seed, epoch and image only. Without it, whole images are padded to one
    size at the bottom and the right.

    Raises UserError if ``augment`` asks for anything else or a file cannot be used.
    """

    def __init__(
        self,
        data: SegmentationSet,
        batch_size: int,
        *,
        augment: Augment | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        if augment and replace(augment, flip=False, scale=(), rotation=0.0, unrotated=0.0, blur=0.0) != Augment():
            raise UserError(
                "images with masks allow only flip, scale, rotation, unrotated and blur of data.augment: set "
                "crop_padding=0, cutout=0, repeats=1, second_view=null and randaugment=null"
            )
        super().__init__(data, batch_size, _Pairs(data, augment), per_image_seeds=augment is not None, **options)

    def _on_device(self, content: tuple[Tensor, Tensor], index: Tensor) -> tuple[Tensor, Tensor]:
        images, masks = (values.to(self.labels.device, non_blocking=True) for values in content)
        return images, masks.long()

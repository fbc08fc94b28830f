"""Batches of images with a label per pixel, made in worker processes."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dkl.data.images.labeled_pixels import SegmentationSet
from dkl.data.loading.batch import Batch
from dkl.data.loading.batch_plan import BatchPlan, BatchPlanner
from dkl.data.loading.file_batches import BATCHES_AHEAD
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


class PixelBatches:
    """Batches of ``data`` on ``device``, with the interface of ``Batches``; labels are masks int64 ``[B, H, W]``.

    With ``augment``, images and masks are changed together by its ``scale``, ``rotation``, ``blur`` and ``flip``, and
    cropped to ``data.size``; the draw depends on seed, epoch and image only. Without it, whole images are padded to one
    size at the bottom and the right.

    Raises ValueError if ``batch_size`` is below 1, and UserError if ``augment`` asks for anything else or a file cannot
    be used.
    """

    def __init__(
        self,
        data: SegmentationSet,
        batch_size: int,
        *,
        device: torch.device | str = "cpu",
        augment: Augment | None = None,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        dtype: torch.dtype = torch.float32,
        memory_format: torch.memory_format = torch.contiguous_format,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if augment and replace(augment, flip=False, scale=(), rotation=0.0, unrotated=0.0, blur=0.0) != Augment():
            raise UserError(
                "images with masks allow only flip, scale, rotation, unrotated and blur of data.augment: set "
                "crop_padding=0, cutout=0, repeats=1, second_view=null and randaugment=null"
            )
        self.planner = BatchPlanner(
            count=len(data),
            size=data.size,
            batch_size=batch_size,
            augment=Augment(),
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
            per_image_seeds=augment is not None,
        )
        self.pairs = _Pairs(data, augment)
        self.dtype, self.memory_format, self.workers = dtype, memory_format, workers
        self.labels = data.labels.to(device)

    def __len__(self) -> int:
        return len(self.planner)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; the workers end with it."""
        # The loader takes plans ahead of the loop below, which needs the same plans for indices.
        plans, ahead = itertools.tee(self.planner.epoch(epoch))
        for plan, pair in zip(plans, self._read(ahead), strict=True):
            if isinstance(pair, UserError):
                raise pair
            yield self._make(plan, *pair)

    def _read(self, plans: Iterable[BatchPlan]) -> Iterable[tuple[Tensor, Tensor] | UserError]:
        return DataLoader(
            self.pairs,
            batch_size=None,
            sampler=plans,
            num_workers=self.workers,
            prefetch_factor=BATCHES_AHEAD if self.workers else None,
            pin_memory=self.labels.is_cuda,
            generator=torch.Generator(),  # otherwise the loader draws a base seed from the global generator
        )

    def _make(self, plan: BatchPlan, images: Tensor, masks: Tensor) -> Batch:
        device = self.labels.device
        images = images.to(device, non_blocking=True)
        scaled = images.to(self.dtype, memory_format=self.memory_format).div_(255)
        masks = masks.to(device, non_blocking=True).long()
        index = plan.chosen.to(device, non_blocking=True)
        return Batch(scaled, masks, first=plan.first, total=plan.total, indices=index)

"""Batches of encoded images, decoded in worker processes while training."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dkl.data.images.encoded import EncodedImages
from dkl.data.loading.batch import Batch
from dkl.data.loading.batch_plan import BatchPlan, BatchPlanner
from dkl.data.seeding import preserved_global_rng
from dkl.data.transforms.augment import Augment
from dkl.data.transforms.pil_image import Transform, center_crop, random_crop
from dkl.errors import UserError

BATCHES_AHEAD = 2  # per worker


class _Crops(Dataset[Tensor | UserError]):
    """Pixels uint8 [n, size, size, 3] indexed by batch plans, or the error of an image that cannot be decoded."""

    def __init__(self, files: EncodedImages, transform: Transform) -> None:
        self.files, self.transform = files, transform

    def __getitem__(self, plan: BatchPlan) -> Tensor | UserError:
        pixels = np.empty((len(plan.chosen), self.files.size, self.files.size, 3), np.uint8)
        seeds = itertools.repeat(None) if plan.seeds is None else plan.seeds.tolist()
        try:
            with preserved_global_rng():
                for place, (index, seed) in enumerate(zip(plan.chosen.tolist(), seeds, strict=False)):
                    pixels[place] = self.files.crop(index, self.transform, seed)
        except UserError as error:  # if raised in a worker, it would arrive wrapped in a traceback
            return error
        return torch.from_numpy(pixels)


class FileBatches:
    """Batches of ``data`` on ``device``, with the interface of ``Batches``.

    With ``augment``, images are cropped at random, resized, and changed by its ``flip`` and ``randaugment``; the draw
    depends on seed, epoch, image and copy, not on the number of ``workers``. Without it, the center is cropped.
    Process ``rank`` of ``world`` decodes only its share of each batch. Bytes go to the device and are scaled there.

    Raises ValueError if ``batch_size`` is below 1, and UserError if ``augment`` asks for anything else or a file cannot
    be decoded.
    """

    def __init__(
        self,
        data: EncodedImages,
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
        if augment is not None and replace(augment, flip=False, randaugment=None, repeats=1) != Augment():
            raise UserError(
                "images read from files allow only flip, randaugment and repeats of data.augment: set crop_padding=0, "
                "rotation=0, cutout=0 and second_view=null"
            )
        crop = center_crop(data.size)
        if augment:
            crop = random_crop(data.size, flip=augment.flip, policy=augment.randaugment)
        self.planner = BatchPlanner(
            count=len(data),
            size=(data.size, data.size),
            batch_size=batch_size,
            augment=Augment(repeats=augment.repeats if augment else 1),
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
            per_image_seeds=augment is not None,
        )
        self.crops = _Crops(data, crop)
        self.dtype, self.memory_format, self.workers = dtype, memory_format, workers
        self.labels = data.labels.to(device)

    def __len__(self) -> int:
        return len(self.planner)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; the workers end with it."""
        # The loader takes plans ahead of the loop below, which needs the same plans for labels and indices.
        plans, ahead = itertools.tee(self.planner.epoch(epoch))
        for plan, pixels in zip(plans, self._read(ahead), strict=True):
            if isinstance(pixels, UserError):
                raise pixels
            yield self._make(plan, pixels)

    def _read(self, plans: Iterable[BatchPlan]) -> Iterable[Tensor | UserError]:
        return DataLoader(
            self.crops,
            batch_size=None,
            sampler=plans,
            num_workers=self.workers,
            prefetch_factor=BATCHES_AHEAD if self.workers else None,
            pin_memory=self.labels.is_cuda,
            generator=torch.Generator(),  # otherwise the loader draws a base seed from the global generator
        )

    def _make(self, plan: BatchPlan, pixels: Tensor) -> Batch:
        device = self.labels.device
        images = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
        scaled = images.to(self.dtype, memory_format=self.memory_format).div_(255)
        index = plan.chosen.to(device, non_blocking=True)
        return Batch(scaled, self.labels[index], first=plan.first, total=plan.total, indices=index)

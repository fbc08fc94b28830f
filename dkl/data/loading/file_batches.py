"""Batches of images read from files while training, decoded in worker processes."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dkl.data.images.encoded import EncodedImages
from dkl.data.loading.batch import Batch
from dkl.data.loading.plan import Plan, Planner
from dkl.data.seeding import preserved_global_rng
from dkl.data.transforms.augment import Augment
from dkl.data.transforms.crops import Transform, middle_crop, random_crop
from dkl.errors import UserError

AHEAD = 2  # batches that each worker prepares


class _Crops(Dataset[Tensor | UserError]):
    """Indexed by plans: their images uint8 [n, size, size, 3], or what is wrong with one of them."""

    def __init__(self, files: EncodedImages, transform: Transform) -> None:
        self.files, self.transform = files, transform

    def __getitem__(self, plan: Plan) -> Tensor | UserError:
        pixels = np.empty((len(plan.chosen), self.files.size, self.files.size, 3), np.uint8)
        seeds = itertools.repeat(None) if plan.seeds is None else plan.seeds.tolist()
        try:
            with preserved_global_rng():
                for place, (index, seed) in enumerate(zip(plan.chosen.tolist(), seeds, strict=False)):
                    pixels[place] = self.files.crop(index, self.transform, seed)
        except UserError as error:  # raised in a worker it would arrive wrapped in a traceback
            return error
        return torch.from_numpy(pixels)


class FileBatches:
    """Batches of ``data`` on ``device``, as ``Batches`` gives them of images in memory.

    With ``augment`` images are cropped at random, resized, mirrored and changed by RandAugment where it says so, by a
    draw that ``seed``, epoch, image and copy fix whatever the number of ``workers``; without, the middle is taken.
    Process ``rank`` of ``world`` decodes its share of each batch only. Bytes go to the device and are scaled there.
    Raises UserError where ``augment`` asks for anything else, or a file cannot be decoded.
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
                "images read from files are cropped at random and resized, and changed by data.augment.flip, "
                "randaugment and repeats; leave the rest of data.augment: crop_padding=0, rotation=0, cutout=0, "
                "second_view=null"
            )
        crop = middle_crop(data.size)
        if augment:
            crop = random_crop(data.size, flip=augment.flip, policy=augment.randaugment)
        self.plans = Planner(
            count=len(data),
            size=(data.size, data.size),
            batch_size=batch_size,
            augment=Augment(repeats=augment.repeats if augment else 1),
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
            seeded=augment is not None,
        )
        self.crops = _Crops(data, crop)
        self.dtype, self.memory_format, self.workers = dtype, memory_format, workers
        self.labels = data.labels.to(device)

    def __len__(self) -> int:
        return len(self.plans)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of one epoch; its workers end with it."""
        plans, ahead = itertools.tee(self.plans.epoch(epoch))
        for plan, pixels in zip(plans, self._read(ahead), strict=True):
            if isinstance(pixels, UserError):
                raise pixels
            yield self._make(plan, pixels)

    def _read(self, plans: Iterable[Plan]) -> Iterable[Tensor | UserError]:
        return DataLoader(
            self.crops,
            batch_size=None,
            sampler=plans,
            num_workers=self.workers,
            prefetch_factor=AHEAD if self.workers else None,
            pin_memory=self.labels.is_cuda,
            generator=torch.Generator(),  # or the loader draws a seed for workers from the global one
        )

    def _make(self, plan: Plan, pixels: Tensor) -> Batch:
        device = self.labels.device
        images = pixels.to(device, non_blocking=True).permute(0, 3, 1, 2)
        scaled = images.to(self.dtype, memory_format=self.memory_format).div_(255)
        index = plan.chosen.to(device, non_blocking=True)
        return Batch(scaled, self.labels[index], first=plan.first, total=plan.total, indices=index)

"""Code shared by loaders that read images in worker processes during training."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Generic, TypedDict, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dkl.data.images.image_set import ImageSet
from dkl.data.loading.batch import Batch
from dkl.data.loading.batch_plan import BatchPlan, BatchPlanner
from dkl.data.transforms.augment import Augment
from dkl.errors import UserError
from dkl.runtime.device import on_accelerator

BATCHES_AHEAD = 2  # per worker

Content = TypeVar("Content")


class LoaderOptions(TypedDict, total=False):
    """The arguments of ``ReadBatches`` that its subclasses pass on."""

    device: torch.device | str
    shuffle: bool
    seed: int
    drop_last: bool
    dtype: torch.dtype
    memory_format: torch.memory_format
    rank: int
    world: int
    workers: int


class ReadBatches(ABC, Generic[Content]):
    """Batches of ``data`` on ``device``, read by ``reader`` in ``workers`` processes; used as ``Batches``.

    ``reader`` is indexed by batch plans. It returns what ``_on_device`` takes, or the error of a file that cannot be
    used. With ``per_image_seeds`` its plans have a seed per image, and each image is shown ``repeats`` times. Process
    ``rank`` of ``world`` reads only its share of each batch. Bytes go to the device and are scaled there.

    Raises ValueError if ``batch_size`` is below 1.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        reader: Dataset[Content | UserError],
        *,
        per_image_seeds: bool,
        repeats: int = 1,
        device: torch.device | str = "cpu",
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
        self.planner = BatchPlanner(
            count=len(data),
            size=(data.shape[-2], data.shape[-1]),
            batch_size=batch_size,
            augment=Augment(repeats=repeats),
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
            per_image_seeds=per_image_seeds,
        )
        self.reader, self.workers = reader, workers
        self.dtype, self.memory_format = dtype, memory_format
        self.labels = data.labels.to(device)

    @abstractmethod
    def _on_device(self, content: Content, index: Tensor) -> tuple[Tensor, Tensor]:
        """Images, uint8 ``[n, C, H, W]``, and labels of the positions ``index``, all on the device."""

    def __len__(self) -> int:
        return len(self.planner)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; the workers end with it."""
        # The loader takes plans ahead of the loop below, which needs the same plans for labels and indices.
        plans, ahead = itertools.tee(self.planner.epoch(epoch))
        for plan, content in zip(plans, self._read(ahead), strict=True):
            if isinstance(content, UserError):
                raise content
            index = plan.chosen.to(self.labels.device, non_blocking=True)
            images, labels = self._on_device(content, index)
            scaled = images.to(self.dtype, memory_format=self.memory_format).div_(255)
            yield Batch(scaled, labels, first=plan.first, total=plan.total, indices=index)

    def _read(self, plans: Iterable[BatchPlan]) -> Iterable[Content | UserError]:
        return DataLoader(
            self.reader,
            batch_size=None,
            sampler=plans,
            num_workers=self.workers,
            prefetch_factor=BATCHES_AHEAD if self.workers else None,
            pin_memory=on_accelerator(self.labels),
            generator=torch.Generator(),  # otherwise the loader draws a base seed from the global generator
        )

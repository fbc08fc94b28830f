"""Batches for training and validation, from memory, from files, or of images with masks.

``make_loader`` picks the class for the images. Every class gets the indices and random choices of each batch from a
``BatchPlanner``, and yields ``Batch``. ``dkl.data.streams`` has the batches of semi-supervised training.
"""

import itertools
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial, singledispatch
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dkl.data.augment import Augment, Transform, center_crop, random_crop
from dkl.data.batch import Batch
from dkl.data.images import EncodedImages, Images, ImageSet
from dkl.data.joint import change, draw_joint, padded
from dkl.data.pixels import SegmentationSet
from dkl.data.planning import Batching, BatchPlan, BatchPlanner, SyntheticMixing
from dkl.data.seeding import generator_of, preserved_global_rng
from dkl.data.synthetic import SyntheticImages
from dkl.data.views import POLICY_CHANGES, changed_views
from dkl.errors import UserError
from dkl.runtime.device import on_accelerator

STRIDE = 32
"""Sides of whole images with masks are padded to a multiple of this, which every usual network takes."""

T = TypeVar("T")
Pixels = tuple[Tensor, Tensor | None]
"""Images, uint8 ``[n, C, H, W]``, and their masks ``[n, H, W]`` if they have some."""


class Loader(Protocol):
    """Batches of one split; ``labels`` are all of its labels, on the device of the batches."""

    labels: Tensor

    def __len__(self) -> int:
        """Number of batches per epoch."""

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch."""


@singledispatch
def make_loader(images: ImageSet, batching: Batching) -> Loader:
    """Make batches of ``images``. Register other kinds with ``make_loader.register``.

    Raises UserError on an unregistered kind.
    """
    raise UserError(
        f"data.source returned {type(images).__name__}, for which no loader is registered: return "
        "Images, EncodedImages or a SegmentationSet, or call make_loader.register"
    )


@make_loader.register(Images)
class Batches:
    """Batches of images in memory: augmented on the device, mixed with synthetic images and shared among processes.

    CIFAR-sized sets live on the device as uint8. A batch with random crops is one gather from an unfolded view of the
    padded images, without a loop over images, and costs only the bytes it moves.

    Raises UserError if the settings do not fit each other or the images.
    """

    def __init__(self, data: Images, batching: Batching, mixing: SyntheticMixing | None = None) -> None:
        self.augment = batching.augment or Augment()
        self.second = self.augment.second
        self.augment.check(data.shape)
        self.augment.check_kind("images in memory beside data.synthetic.files" if mixing else "images in memory")
        change = POLICY_CHANGES.get(self.augment.second_view or "")
        self.read_second = partial(changed_views, data.images, self.augment, change) if change else None
        self.planner = BatchPlanner(
            count=len(data),
            size=data.shape[1:],
            batching=batching,
            augment=self.augment,
            mixing=mixing,
            per_image_seeds=change is not None or bool(self.augment.transforms),
        )
        self.batching, self.mixing = batching, mixing
        self.labels = data.labels.to(batching.device)
        self.windows = self.augment.windows(data.images.to(batching.device))

    def __len__(self) -> int:
        return len(self.planner)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; on a GPU each is made while the one before is in use, but for AutoAugment."""
        plans = self.planner.epoch(epoch)
        if self.read_second:
            views = read_ahead(self.read_second, plans, self.batching)
            return (self._make(plan, view.to(self.labels.device, non_blocking=True)) for plan, view in views)
        batches = (self._make(plan) for plan in plans)
        return prefetch(batches) if on_accelerator(self.labels) else batches

    def _make(self, plan: BatchPlan, second: Tensor | None = None) -> Batch:
        """Make the batch of ``plan``; ``second`` is its second view if that is made elsewhere."""
        if self.mixing is not None:
            windows, labels = self._gather(plan.chosen, self.mixing.images)
            index = torch.arange(len(labels), device=labels.device)
        else:
            index = plan.chosen.to(self.labels.device, non_blocking=True)
            windows, labels = self.windows, self.labels[index]
        images, views = self.augment.apply(windows, index, plan.draw), 1
        if self.second and plan.second:
            if second is None:
                second = self.second.apply(windows, index, plan.second)
            images, labels, views = torch.cat([images, second]), labels.repeat(2), 2
        if self.augment.transforms:
            assert plan.seeds is not None
            images = self.augment.transformed(images, plan.seeds.repeat(views))
        scaled = self.batching.scaled(images)
        return Batch(scaled, labels, views, plan.first, plan.total, None if self.mixing else index)

    def _gather(self, index: Tensor, synthetic: SyntheticImages) -> tuple[Tensor, Tensor]:
        """Windows and labels of the images at ``index``; indices from ``len(data)`` on are synthetic images."""
        device, pad, real = self.labels.device, self.augment.crop_padding, len(self.labels)
        images = self.windows.new_empty((len(index), *self.windows.shape[1:2], *self.windows.shape[-2:]))
        labels = self.labels.new_empty(len(index))
        real_places, synthetic_places = (index < real).nonzero().squeeze(1), (index >= real).nonzero().squeeze(1)
        chosen = index[real_places].to(device)
        # The window at offset (pad, pad) is the image without its padding.
        images[real_places.to(device)] = self.windows[chosen, :, pad, pad]
        labels[real_places.to(device)] = self.labels[chosen]
        pixels, synthetic_labels = synthetic.take(index[synthetic_places] - real)
        images[synthetic_places.to(device)] = pixels.to(device)
        labels[synthetic_places.to(device)] = synthetic_labels.to(device)
        return self.augment.windows(images), labels


class ReadBatches:
    """Batches of ``data`` that ``read`` makes of batch plans, in worker processes while training.

    Each process reads only its share of each batch. Bytes go to the device and are scaled there.
    """

    def __init__(self, data: ImageSet, batching: Batching, read: Callable[[BatchPlan], Pixels]) -> None:
        self.planner = BatchPlanner(
            count=len(data),
            size=data.shape[1:],
            batching=batching,
            augment=Augment(repeats=batching.augment.repeats if batching.augment else 1),
            per_image_seeds=batching.augment is not None,
        )
        self.batching, self.read = batching, read
        self.labels = data.labels.to(batching.device)

    def __len__(self) -> int:
        return len(self.planner)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; the workers end with it."""
        device, plans = self.labels.device, self.planner.epoch(epoch)
        for plan, (pixels, masks) in read_ahead(self.read, plans, self.batching, pin=on_accelerator(self.labels)):
            index = plan.chosen.to(device, non_blocking=True)
            images = self.batching.scaled(pixels.to(device, non_blocking=True))
            labels = self.labels[index] if masks is None else masks.to(device, non_blocking=True).long()
            yield Batch(images, labels, first=plan.first, total=plan.total, indices=index)


@make_loader.register(EncodedImages)
class FileBatches(ReadBatches):
    """Batches of images that are decoded when used.

    With augmentation, images are cropped at random, resized, and changed by its ``flip`` and ``randaugment``; the draw
    depends on seed, epoch, image and copy, not on the number of workers. Without it, the center is cropped.

    Raises UserError if the augmentation asks for anything else or a file cannot be decoded.
    """

    def __init__(self, data: EncodedImages, batching: Batching) -> None:
        transform = center_crop(data.size, data.center)
        if batching.augment:
            batching.augment.check_kind("images read from files")
            transform = random_crop(data.size, batching.augment)
        super().__init__(data, batching, partial(_read_crops, data, transform))


def _read_crops(data: EncodedImages, transform: Transform, plan: BatchPlan) -> Pixels:
    pixels = np.empty((len(plan.chosen), data.size, data.size, 3), np.uint8)
    seeds = itertools.repeat(None) if plan.seeds is None else plan.seeds.tolist()
    for place, (index, seed) in enumerate(zip(plan.chosen.tolist(), seeds, strict=False)):
        pixels[place] = data.crop(index, transform, seed)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2), None


@make_loader.register(SegmentationSet)
class PixelBatches(ReadBatches):
    """Batches of images with masks: the labels are int64 ``[B, H, W]``.

    With augmentation, images and masks are changed together by its ``scale``, ``rotation``, ``blur`` and ``flip``, and
    cropped to ``data.size``; the draw depends on seed, epoch and image only. Without it, whole images are padded to one
    size at the bottom and the right.

    Raises UserError if the augmentation asks for anything else or a file cannot be used.
    """

    def __init__(self, data: SegmentationSet, batching: Batching) -> None:
        if batching.augment:
            batching.augment.check_kind("images with masks")
        super().__init__(data, batching, partial(_read_pairs, data, batching.augment))


def _read_pairs(data: SegmentationSet, augment: Augment | None, plan: BatchPlan) -> Pixels:
    fill, ignore = data.pixels.fill, data.pixels.ignore_index
    whole = tuple(-(-side // STRIDE) * STRIDE for side in data.largest)
    pairs = []
    for place, index in enumerate(plan.chosen.tolist()):
        image, mask = data.pair(index)
        if augment is None or plan.seeds is None:
            image, mask = padded(image, mask[None], whole, fill=fill, ignore=ignore)
            pairs.append((image, mask[0]))
        else:
            draw = draw_joint(augment, generator_of(int(plan.seeds[place])))
            pairs.append(change(image, mask, draw, size=data.size, fill=fill, ignore=ignore))
    images, masks = zip(*pairs, strict=True)
    return torch.stack(images), torch.stack(masks)


class _Reads(Dataset[Any]):
    """What ``read`` makes of a batch plan, or its UserError: raised in a worker, that would arrive in a traceback."""

    def __init__(self, read: Callable[[BatchPlan], Any]) -> None:
        self.read = read

    def __getitem__(self, plan: BatchPlan) -> Any:
        try:
            with preserved_global_rng():
                return self.read(plan)
        except UserError as error:
            return error


def read_ahead(
    read: Callable[[BatchPlan], T], plans: Iterable[BatchPlan], batching: Batching, *, pin: bool = False
) -> Generator[tuple[BatchPlan, T], None, None]:
    """Yield each of ``plans`` with what ``read`` makes of it, in worker processes or, with 0 workers, in this one.

    Each worker prepares two batches ahead. The workers end with the iterator. ``pin`` reads into page-locked memory.
    """
    # The loader takes plans ahead of the loop below, which yields the same plans.
    plans, ahead = itertools.tee(plans)
    loader = DataLoader(
        _Reads(read),
        batch_size=None,
        sampler=ahead,
        num_workers=batching.workers,
        pin_memory=pin,
        generator=torch.Generator(),  # otherwise the loader draws a base seed from the global generator
    )
    for plan, content in zip(plans, loader, strict=True):
        if isinstance(content, UserError):
            raise content
        yield plan, content


def prefetch(source: Generator[T, None, None]) -> Iterator[T]:
    """Yield the items of ``source`` (none may be None), each made in a thread while the one before is in use.

    Errors of ``source`` are raised here. If the iterator is closed early, it waits for the item in preparation and
    closes ``source``.
    """
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
            coming = thread.submit(next, source, None)
            while (item := coming.result()) is not None:
                coming = thread.submit(next, source, None)
                yield item
    finally:
        source.close()

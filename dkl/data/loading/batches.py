"""Batches of images in memory, on a device: augmented, mixed with synthetic images and shared among processes.

CIFAR-sized sets live on the device as uint8. A batch with random crops is one gather from an unfolded view of the
padded images, without a loop over images, and costs only the bytes it moves.
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from dkl.data.images.in_memory import Images
from dkl.data.images.synthetic import SyntheticImages
from dkl.data.loading.batch import Batch
from dkl.data.loading.batch_plan import BatchPlan, BatchPlanner
from dkl.data.loading.index_batches import SyntheticMixing
from dkl.data.loading.prefetch import prefetch
from dkl.data.loading.worker_views import AutoAugmentPolicyChange, worker_views
from dkl.data.transforms.augment import POLICIES, Augment
from dkl.data.transforms.official_policy import official_policy
from dkl.errors import UserError
from dkl.runtime.device import on_accelerator


class Batches:
    """Batches of ``data`` on ``device``: in order, or shuffled and augmented as ``seed`` and epoch determine.

    Process ``rank`` of ``world`` gets its share of each batch; together the shares are bit for bit the batches of one
    process. ``workers`` processes prepare AutoAugment's second views. With ``synthetic``, ``fraction`` of each batch
    is synthetic, and an epoch has as many full batches as ``epoch_size`` images need (by default ``len(data)``).

    Raises ValueError if ``batch_size`` is below 1, and UserError if the options do not fit each other or the images.
    """

    def __init__(
        self,
        data: Images,
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
        synthetic: SyntheticImages | None = None,
        fraction: float = 0.0,
        epoch_size: int | None = None,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.augment = augment or Augment()
        self.second = self.augment.second
        self.augment.check(tuple(data.images.shape[1:]))
        self.augment.check_no_masks()
        if self.augment.randaugment or self.augment.interpolation != "bilinear":
            raise UserError(
                "data.augment.randaugment and interpolation change images read from files (data=imagenet, imagefiles): "
                "set randaugment=null and interpolation=bilinear; second_view=official_autoaugment changes images in "
                "memory"
            )
        self.planner = BatchPlanner(
            count=len(data),
            size=(data.images.shape[-2], data.images.shape[-1]),
            batch_size=batch_size,
            augment=self.augment,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
            mixing=_make_mixing(synthetic, fraction, batch_size, epoch_size or len(data), self.augment)
            if synthetic is not None
            else None,
            per_image_seeds=self.augment.second_view in POLICIES,
        )
        self.dtype, self.memory_format = dtype, memory_format
        self.data, self.synthetic, self.workers = data, synthetic, workers
        self.labels = data.labels.to(device)
        self.windows = self.augment.windows(data.images.to(device))

    def __len__(self) -> int:
        return len(self.planner)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch; on a GPU each is made while the one before is in use, but for AutoAugment."""
        if self.augment.second_view in POLICIES:
            return self._with_autoaugment(epoch)
        batches = (self._make(plan) for plan in self.planner.epoch(epoch))
        return prefetch(batches) if on_accelerator(self.labels) else batches

    def _with_autoaugment(self, epoch: int) -> Iterator[Batch]:
        plans, ahead = itertools.tee(self.planner.epoch(epoch))
        change = official_policy if self.augment.second_view == "official_autoaugment" else AutoAugmentPolicyChange()
        views = worker_views(self.data.images, self.augment, change, ahead, self.workers)
        for plan, view in zip(plans, views, strict=False):
            yield self._make(plan, view.to(self.labels.device, non_blocking=True))

    def _make(self, plan: BatchPlan, second: Tensor | None = None) -> Batch:
        """Make the batch of ``plan``; ``second`` is its second view if that is made elsewhere."""
        if self.synthetic is not None:
            windows, labels = self._gather(plan.chosen, self.synthetic)
            index = torch.arange(len(labels), device=labels.device)
        else:
            index = plan.chosen.to(self.labels.device, non_blocking=True)
            windows, labels = self.windows, self.labels[index]
        images, views = self.augment.apply(windows, index, plan.draw), 1
        if self.second and plan.second:
            if second is None:
                second = self.second.apply(windows, index, plan.second)
            images, labels, views = torch.cat([images, second]), labels.repeat(2), 2
        scaled = images.to(self.dtype, memory_format=self.memory_format).div_(255)
        return Batch(scaled, labels, views, plan.first, plan.total, None if self.synthetic else index)

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


def _make_mixing(
    synthetic: SyntheticImages, fraction: float, batch_size: int, epoch_size: int, augment: Augment
) -> SyntheticMixing:
    """Raises UserError if a batch would be all real or all synthetic, or if ``augment`` does not allow mixing."""
    per_batch = int(batch_size * fraction)
    if not 0 < per_batch < batch_size:
        raise UserError(
            f"data.synthetic.fraction={fraction} makes {per_batch} of a batch of {batch_size} synthetic: choose a "
            "fraction between 0 and 1 that leaves some of both, or a larger trainer.batch_size"
        )
    for key, value in (("second_view", augment.second_view), ("repeats", augment.repeats > 1 and augment.repeats)):
        if value:
            raise UserError(f"data.augment.{key}={value} does not work with data.synthetic.files: remove one of them")
    batches = -(-epoch_size // batch_size)
    return SyntheticMixing(synthetic_count=len(synthetic), synthetic_per_batch=per_batch, batches=batches)

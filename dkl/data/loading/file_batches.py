"""Batches of encoded images, decoded in worker processes while training."""

import itertools
from dataclasses import replace
from typing import Any, Unpack

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dkl.data.images.encoded import EncodedImages
from dkl.data.loading.batch_plan import BatchPlan
from dkl.data.loading.read_batches import LoaderOptions, ReadBatches
from dkl.data.seeding import preserved_global_rng
from dkl.data.transforms.augment import Augment
from dkl.data.transforms.pil_image import Transform, center_crop, random_crop
from dkl.errors import UserError


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


class FileBatches(ReadBatches[Tensor]):
    """Batches of ``data``; ``options`` are those of ``ReadBatches``.

    With ``augment``, images are cropped at random, resized, and changed by its ``flip`` and ``randaugment``; the draw
    depends on seed, epoch, image and copy, not on the number of workers. Without it, the center is cropped.

    Raises UserError if ``augment`` asks for anything else or a file cannot be decoded.
    """

    def __init__(
        self,
        data: EncodedImages,
        batch_size: int,
        *,
        augment: Augment | None = None,
        **options: Unpack[LoaderOptions],
    ) -> None:
        allowed: dict[str, Any] = {"flip": False, "randaugment": None, "interpolation": "bilinear", "repeats": 1}
        if augment is not None and replace(augment, **allowed) != Augment():
            raise UserError(
                f"images read from files allow only {', '.join(allowed)} of data.augment: set crop_padding=0, "
                "rotation=0, cutout=0 and second_view=null"
            )
        crop, repeats = center_crop(data.size, data.center), 1
        if augment:
            crop, repeats = (
                random_crop(
                    data.size, flip=augment.flip, policy=augment.randaugment, interpolation=augment.interpolation
                ),
                augment.repeats,
            )
        reader = _Crops(data, crop)
        super().__init__(data, batch_size, reader, per_image_seeds=augment is not None, repeats=repeats, **options)

    def _on_device(self, content: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        images = content.to(self.labels.device, non_blocking=True).permute(0, 3, 1, 2)
        return images, self.labels[index]

"""Augmented CIFAR-sized batches per second: one gather in memory, against torchvision's transforms in a DataLoader."""

import collections
import itertools
import warnings
from collections.abc import Iterable
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler
from torchvision import transforms

from dkl.data import Augment, Batches, Batching, Images
from scripts.bench.report import Result, Row, Table, Target
from scripts.bench.timing import Call, alternate

IMAGES, BATCH, PASS = 50_000, 128, 10_000


class Pictures(Dataset[tuple[Tensor, int]]):
    """``pixels[N, H, W, 3]`` as the official code reads CIFAR: one PIL image at a time, cropped and mirrored."""

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels
        self.transform = transforms.Compose(
            [transforms.RandomCrop(32, padding=4), transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        )

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.pixels[index])), 0


def loader(pictures: Pictures, workers: int) -> DataLoader[tuple[Tensor, int]]:
    """Shuffled batches of one pass. Workers stay alive between passes, so that their start is not timed."""
    sampler = RandomSampler(pictures, num_samples=PASS)
    return DataLoader(pictures, BATCH, sampler=sampler, num_workers=workers, persistent_workers=workers > 0)


def exhaust(batches: Iterable[object]) -> None:
    """Read all batches and discard them."""
    collections.deque(batches, maxlen=0)


def run(rounds: int) -> Result:
    """Time dkl and the loaders."""
    warnings.filterwarnings("ignore", message=".*This DataLoader will create.*")
    images = torch.randint(256, (IMAGES, 3, 32, 32), dtype=torch.uint8)
    data = Images(images, torch.zeros(IMAGES, dtype=torch.int64))
    batches = Batches(data, Batching(BATCH, augment=Augment(crop_padding=4, flip=True), shuffle=True))
    epochs = itertools.count()
    pictures = Pictures(images.permute(0, 2, 3, 1).contiguous().numpy())
    loaders = {f"PIL, {workers} workers": loader(pictures, workers) for workers in (0, 2)}
    variants: dict[str, Call] = {"dkl": lambda: exhaust(batches.epoch(next(epochs)))}
    variants |= {name: partial(exhaust, source) for name, source in loaders.items()}
    sizes = {name: IMAGES if name == "dkl" else PASS for name in variants}
    print(f"   timing: {'; '.join(f'{name}, {size:,} images' for name, size in sizes.items())}", flush=True)
    timings = alternate(variants, rounds)
    fastest = IMAGES / timings["dkl"].median
    rows: list[Row] = []
    for name, timing in timings.items():
        speed = sizes[name] / timing.median
        rows.append([name, round(speed), round(sizes[name] / timing.minimum), fastest / speed])
    columns = ["variant", "images/s, median", "images/s, best round", "dkl is faster by"]
    single = PASS / timings["PIL, 0 workers"].median
    targets = [Target("dkl over the PIL loader in one process, images/s", fastest / single, 15)]
    notes = [
        f"Crop with 4 pixels of padding, mirror, scale to [0, 1]; shuffled batches of {BATCH} from {IMAGES:,} random "
        f"32×32 images in memory on both sides. A pass is an epoch of dkl, {PASS:,} images of a loader, whose workers "
        "are started before the clock.",
    ]
    samples = {name: timing.samples for name, timing in timings.items()}
    title = "Data: images per second"
    return Result("data", title, rounds, [Table("Augmented batches", columns, rows)], targets, notes, samples)

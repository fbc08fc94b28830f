"""Images and loaders from a configuration."""

import os
from dataclasses import asdict

import torch

from dkl.assembly.parts import make
from dkl.config import DataConfig, Precision, TrainConfig
from dkl.data import Augment, Images, ImageSet, Loader, SyntheticImages, make_loader
from dkl.distributed import rank, world
from dkl.errors import UserError


def load_data(data: DataConfig) -> tuple[ImageSet, ImageSet]:
    """Load training and test images, cut to size. Raises UserError if they do not fit ``data``."""
    train, test = make(data.source, "data.source", tuple)
    for split, images in (("training", train), ("test", test)):
        if images.shape != tuple(data.shape):
            got = list(images.shape)
            raise UserError(
                f"{data.name}: {split} images are {got}, not data.shape={list(data.shape)}; set data.shape={got}"
            )
        if not len(images):
            raise UserError(f"{data.name} has no {split} images: check the files that data.source names")
        low, high = int(images.labels.min()), int(images.labels.max())
        if low < 0 or high >= data.num_classes:
            raise UserError(
                f"{data.name}: {split} labels run from {low} to {high}, but data.num_classes={data.num_classes}; "
                f"set data.num_classes={high + 1} or number the labels from 0"
            )
    if data.synthetic.files and not isinstance(train, Images):
        raise UserError(
            f"{data.name}: data.synthetic.files need training images in memory; set data.synthetic.files=[]"
        )
    # Checked before cutting: the message names the whole dataset's classes.
    return train.balanced(data.train_size), test.balanced(data.test_size)


def load_synthetic(data: DataConfig) -> SyntheticImages | None:
    """Map the synthetic images of ``data`` into memory, or return None without any.

    Raises UserError if they do not fit ``data``.
    """
    files = list(data.synthetic.files)
    return SyntheticImages(files, shape=list(data.shape), num_classes=data.num_classes) if files else None


def make_augment(data: DataConfig) -> Augment:
    """Make the random changes of training images. Raises UserError if a value makes no sense."""
    return Augment(**asdict(data.augment))


def make_batches(
    config: TrainConfig,
    images: ImageSet,
    device: torch.device,
    *,
    training: bool,
    synthetic: SyntheticImages | None = None,
    epoch_size: int | None = None,
) -> Loader:
    """Make the loader of this process's share of ``images``: shuffled and augmented for training, else in order.

    With ``synthetic`` images an epoch is as long as ``epoch_size`` images: the number of real ones before any were
    held out.
    """
    # The same order and augmentation on every process: each draws the whole batch from the seed and takes its share.
    trainer, mixing = config.trainer, {}
    if synthetic is not None:
        mixing = {"synthetic": synthetic, "fraction": config.data.synthetic.fraction, "epoch_size": epoch_size}
    return make_loader(
        images,
        trainer.batch_size if training else config.evaluation.batch_size,
        device=device,
        augment=make_augment(config.data) if training else None,
        shuffle=training,
        drop_last=training and trainer.drop_last,
        seed=config.seed,
        dtype=torch.float64 if trainer.precision is Precision.float64 else torch.float32,
        memory_format=torch.channels_last if trainer.channels_last else torch.contiguous_format,
        rank=rank(),
        world=world(),
        workers=min(trainer.workers, _cores()),
        **mixing,
    )


def _cores() -> int:
    """Count the processor cores that this process may use; more workers than that only wait for each other."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

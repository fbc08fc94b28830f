"""Images and loaders from a configuration."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from dkl.assembly.parts import make
from dkl.config import DataConfig, TrainConfig
from dkl.config.schema import Precision
from dkl.data import (
    Augment,
    Batches,
    Batching,
    Center,
    EncodedImages,
    ImageFiles,
    Images,
    ImageSet,
    Loader,
    ShardedImages,
    SyntheticImages,
    SyntheticMixing,
    make_loader,
)
from dkl.errors import UserError
from dkl.runtime.device import cores
from dkl.runtime.distributed import rank, world

PUBLISHED_TWICE = {"cifar100": 10}
"""Test images that published datasets have among their training images, counted in those of the reference records."""


def load_data(data: DataConfig) -> tuple[ImageSet, ImageSet]:
    """Load training and test images, cut to size. Raises UserError if they do not fit ``data``."""
    splits = make(data.source, "data.source", tuple)
    if len(splits) != 2 or not all(isinstance(images, ImageSet) for images in splits):
        kinds = ", ".join(type(images).__name__ for images in splits)
        raise UserError(
            f"data.source: {data.source['_target_']} must return two dkl.data.Images, for training and for tests, not "
            f"({kinds})"
        )
    train, test = splits
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
            fix = "" if low < 0 else f"set data.num_classes={high + 1} or "
            raise UserError(
                f"{data.name}: {split} labels run from {low} to {high}, but data.num_classes={data.num_classes} allows "
                f"0 to {data.num_classes - 1}; {fix}number the labels from 0"
            )
    if data.synthetic.files and not isinstance(train, Images):
        raise UserError(
            f"{data.name}: data.synthetic.files need training images in memory; set data.synthetic.files=[]"
        )
    # Checked before cutting: the message names the whole dataset's classes.
    return _ready(train.balanced(data.train_size), data), _ready(test.balanced(data.test_size), data)


def _ready(images: ImageSet, data: DataConfig) -> ImageSet:
    """``images``, of which tests see the center that ``data`` says. Raises UserError if they cannot be used so."""
    center, usual = Center(data.center_crop, data.interpolation), Center()
    if isinstance(images, EncodedImages):
        images.check_first()
    if center == usual:
        return images
    if not isinstance(images, ImageFiles | ShardedImages):
        raise UserError(
            f"data.center_crop={center.share} and data.interpolation={center.interpolation} are for images read from "
            f"files (data=imagenet, imagefiles): set {usual.share} and {usual.interpolation}"
        )
    return replace(images, center=center)


def overlap_warnings(train: ImageSet, test: ImageSet, data: DataConfig) -> Iterator[str]:
    """Yield how many images of ``test`` are in ``train`` too, by their hashes, if more than in the published dataset.

    Synthetic images are not searched: they may be far larger than memory.
    """
    count, looked = test.count_in(train)
    if count > PUBLISHED_TWICE.get(data.name, 0):
        which = "test images" if looked == len(test) else f"evenly spaced ones of {len(test)} test images"
        yield (
            f"{count} of {looked} {which} are among the training images of {data.name} ({100 * count / looked:.2f} %), "
            "so accuracies may be too high"
        )


def load_synthetic(data: DataConfig) -> SyntheticImages | None:
    """Map the synthetic images of ``data`` into memory, or return None without any.

    Raises UserError if they do not fit ``data``.
    """
    files = list(data.synthetic.files)
    return SyntheticImages(files, shape=list(data.shape), num_classes=data.num_classes) if files else None


def draw_labeled(data: DataConfig, training: ImageSet, seed: int) -> tuple[ImageSet, ImageSet | None, str | None]:
    """Split the ``training`` images of semi-supervised training: those that keep their labels, and the unlabeled ones.

    The unlabeled images are all of them, as in USB. Also returns the hash of the labeled ones' positions. Without
    ``data.labels_per_class`` all images are labeled. Raises UserError if there are too few per class, or if they are
    not in memory.
    """
    if data.labels_per_class is None:
        return training, None, None
    if not isinstance(training, Images):
        raise UserError(
            f"{data.name}: data.labels_per_class needs training images in memory; set data.labels_per_class=null"
        )
    indices = training.labeled_indices(data.labels_per_class, seed, official=data.official_labels)
    sha256 = hashlib.sha256(indices.numpy().astype("<i8").tobytes()).hexdigest()
    return training.at(indices), training if data.unlabeled.ratio else None, sha256


def make_augment(data: DataConfig) -> Augment:
    """Make the random changes of training images. Raises UserError if a value makes no sense."""
    nodes = enumerate(data.augment.transforms)
    transforms = [make(node, f"data.augment.transforms[{place}]", object) for place, node in nodes]
    return Augment(**vars(data.augment) | {"transforms": transforms})


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
    batching = make_batching(config, device, training=training)
    if synthetic is None:
        return make_loader(images, batching)
    assert isinstance(images, Images)  # ``load_data`` allows no others beside synthetic ones
    return Batches(images, batching, SyntheticMixing(synthetic, config.data.synthetic.fraction, epoch_size))


def make_batching(config: TrainConfig, device: torch.device, *, training: bool) -> Batching:
    """How ``config`` makes batches for training, or in order for tests."""
    trainer = config.trainer
    return Batching(
        trainer.batch_size if training else config.evaluation.batch_size,
        augment=make_augment(config.data) if training else None,
        shuffle=training,
        # The same seed on every process: each draws the whole batch and takes its share.
        seed=config.seed,
        drop_last=training and trainer.drop_last,
        rank=rank(),
        world=world(),
        workers=min(trainer.workers, cores()),  # more would only wait for each other
        device=device,
        dtype=torch.float64 if trainer.precision is Precision.float64 else torch.float32,
        memory_format=torch.channels_last if trainer.channels_last else torch.contiguous_format,
    )

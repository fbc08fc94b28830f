"""Datasets, and how their images are changed in training."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from omegaconf import MISSING

from dkl.validation import (
    CLASSES,
    COUNT,
    CROPPED,
    DEGREES,
    FRACTION,
    LABEL,
    MEAN,
    PIXELS,
    REPEATS,
    SCALE,
    SHARE,
    SIDE,
    STD,
    Range,
)


@dataclass
class AugmentConfig:
    """Random changes of training images; ``dkl.data.Augment`` says in which order."""

    crop_padding: Annotated[int, PIXELS] = 0
    """Pad by this many pixels on each side and crop back at random, from 0 to 1000."""
    crop_fill: str = "zeros"
    """What the padding is: zeros, or reflect for the image mirrored at its border."""
    flip: bool = False
    """Mirror left to right with probability 1/2."""
    rotation: Annotated[float, DEGREES] = 0.0
    """Rotate by a random angle of at most this many degrees, from 0 to 180."""
    cutout: Annotated[int, PIXELS] = 0
    """Side in pixels of a square hole at a random place, from 0 to 1000; 0 is none."""
    second_view: str | None = None
    """Add a second draw of every image: official_autoaugment, autoaugment (torchvision's), cutout, or null for none."""
    randaugment: str | None = None
    """A RandAugment policy in timm's notation, such as rand-m7-mstd0.5, for images read from files; null for none."""
    interpolation: str = "bilinear"
    """With images read from files: how crops are resized, bilinear, or random for bilinear or bicubic."""
    repeats: Annotated[int, REPEATS] = 1
    """Show each image this many times per epoch, and fewer images, from 1 to 1000."""
    scale: Annotated[list[float], SCALE] = field(default_factory=list)
    """With masks: resize by a random factor between these two, above 0 and at most 100; empty for not at all."""
    unrotated: Annotated[float, SHARE] = 0.0
    """With masks: share of images that rotation leaves alone, in [0, 1]."""
    blur: Annotated[float, SHARE] = 0.0
    """With masks: share of images blurred by a 5x5 Gaussian, in [0, 1]."""


@dataclass
class SyntheticConfig:
    """Synthetic images that are mixed with the real ones."""

    files: list[str] = field(default_factory=list)
    """The .npz files of synthetic images, in order; empty for none."""
    fraction: Annotated[float, FRACTION] = 0.0
    """Share of synthetic images in every batch, in [0, 1); 0 without files."""


@dataclass
class UnlabeledConfig:
    """Images without labels beside the labeled ones, for semi-supervised tasks: two views of each."""

    ratio: Annotated[int, Range(0, 1000)] = 0
    """Unlabeled images per labeled one in every step, from 0 to 1000; 0 for none."""
    second_view: str = "strong"
    """strong (RandAugment and a gray hole), or weak for another draw of data.augment, as in Mean-Teacher."""
    operations: Annotated[int, Range(0, 100)] = 3
    """RandAugment operations of the strong view, drawn with replacement, from 0 to 100."""
    probability: Annotated[float, SHARE] = 1.0
    """Probability in [0, 1] that each of them is applied."""
    smallest_hole: Annotated[float, SHARE] = 0.0
    """Least side of the hole as a share of the image's, in [0, 1]."""
    largest_hole: Annotated[float, SHARE] = 0.5
    """Greatest side of the hole as a share of the image's, in [0, 1]; 0 for no hole."""


@dataclass
class DataConfig:
    """A dataset and how its images are changed in training."""

    name: str = MISSING
    """Name in folders and records."""
    num_classes: Annotated[int, CLASSES] = MISSING
    """Number of classes, from 1 to 1e5."""
    shape: Annotated[list[int], SIDE] = MISSING
    """Image shape: channels, height, width, each from 1 to 1e5."""
    eps: str = MISSING
    """Usual Linf radius of attacks, in pixel units of [0, 1], such as 8/255."""
    mean: Annotated[list[float] | None, MEAN] = None
    """Channel means for models that normalize their input, in [0, 1]; null if there are none."""
    std: Annotated[list[float] | None, STD] = None
    """Channel standard deviations for models that normalize their input, in (0, 1]; null if there are none."""
    train_size: Annotated[int | None, COUNT] = None
    """Use this many training images, balanced over classes, from 1 to 1e9; null for all."""
    test_size: Annotated[int | None, COUNT] = None
    """Use this many test images, balanced over classes, from 1 to 1e9; null for all."""
    center_crop: Annotated[float, CROPPED] = 0.875
    """With images read from files: share of the shorter side that tests see, in (0, 1]."""
    interpolation: str = "bilinear"
    """With images read from files: how tests resize them, bilinear or bicubic."""
    ignore_index: Annotated[int | None, LABEL] = None
    """Label of pixels that do not count, no class, from -32768 to 65535; null for images with one label each."""
    class_names: list[str] = field(default_factory=list)
    """Names of the classes in figures; empty for their numbers."""
    long_tail: bool = False
    """Classes have different numbers of training images on purpose, so train_size must be null."""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """Random changes of training images."""
    synthetic: SyntheticConfig = field(default_factory=SyntheticConfig)
    """Synthetic images that are mixed with the real ones."""
    labels_per_class: Annotated[int | None, COUNT] = None
    """Keep the labels of this many training images per class, from 1 to 1e9, drawn by seed; null keeps all."""
    official_labels: bool = False
    """Draw them as DKL's fork of USB, which takes nine random numbers before; false draws them as USB."""
    unlabeled: UnlabeledConfig = field(default_factory=UnlabeledConfig)
    """Unlabeled images in semi-supervised training."""
    source: Any = MISSING
    """Function that returns training and test images, and its arguments."""

"""Networks have exactly the keys, shapes and sizes of the public checkpoints."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch

from dkl.models import create_model
from tests.models.common import count

Shapes = dict[str, tuple[int, ...]]


def bn(name: str, width: int) -> Shapes:
    vectors = dict.fromkeys((f"{name}.{key}" for key in ("weight", "bias", "running_mean", "running_var")), (width,))
    return {**vectors, f"{name}.num_batches_tracked": ()}


def weight(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape}


def affine(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def conv_bn(block: str, number: int, *shape: int) -> Shapes:
    return weight(f"{block}.conv{number}", *shape) | bn(f"{block}.bn{number}", shape[0])


def resnet(blocks: int, stem: int, first: int) -> Shapes:
    shapes = weight("conv1", stem, 3, 3, 3) | bn("bn1", stem)
    before = stem
    for group, width in enumerate((first, 2 * first, 4 * first), start=1):
        for index in range(blocks):
            block = f"layer{group}.{index}"
            shapes |= conv_bn(block, 1, width, before, 3, 3) | conv_bn(block, 2, width, width, 3, 3)
            if before != width:
                shapes |= weight(f"{block}.downsample.0", width, before, 1, 1) | bn(f"{block}.downsample.1", width)
            before = width
    return shapes | affine("fc", 100, before)


def imagenet_resnet(blocks: tuple[int, ...], expansion: int) -> Shapes:
    shapes = weight("conv1", 64, 3, 3, 3) | bn("bn1", 64)
    before = 64
    for group, (number, inner) in enumerate(zip(blocks, (64, 128, 256, 512), strict=True), start=1):
        for index in range(number):
            block, outer = f"layer{group}.{index}", inner * expansion
            if expansion == 1:
                shapes |= conv_bn(block, 1, inner, before, 3, 3) | conv_bn(block, 2, inner, inner, 3, 3)
            else:
                shapes |= conv_bn(block, 1, inner, before, 1, 1) | conv_bn(block, 2, inner, inner, 3, 3)
                shapes |= conv_bn(block, 3, outer, inner, 1, 1)
            if before != outer:
                shapes |= weight(f"{block}.shortcut.0", outer, before, 1, 1) | bn(f"{block}.shortcut.1", outer)
            before = outer
    return shapes | affine("linear", 100, before)


@dataclass(frozen=True)
class Names:
    """Names of the parts in one family of checkpoints; ``block`` is formatted with a group and a block from 0."""

    stem: str
    block: str
    norm: tuple[str, str]
    conv: tuple[str, str]
    shortcut: str
    last_norm: str
    head: str
    first_group: int = 0


TRADES = Names(
    "conv1", "block{}.layer.{}", ("bn1", "bn2"), ("conv1", "conv2"), "convShortcut", "bn1", "fc", first_group=1
)
DEEPMIND = Names(
    "init_conv",
    "layer.{}.block.{}",
    ("batchnorm_0", "batchnorm_1"),
    ("conv_0", "conv_1"),
    "shortcut",
    "batchnorm",
    "logits",
)


PREACT = Names("conv1", "layer{}.{}", ("bn1", "bn2"), ("conv1", "conv2"), "shortcut.0", "bn", "linear", first_group=1)
ROBUSTBENCH = Names(
    "conv_2d",
    "layer_{}.{}",
    ("batchnorm_0", "batchnorm_1"),
    ("conv_2d_1", "conv_2d_2"),
    "shortcut",
    "batchnorm",
    "logits",
)


def preactivated(names: Names, stem: int, widths: tuple[int, ...], blocks: int, shortcut: int = 1) -> Shapes:
    """Groups of ``blocks`` pre-activation blocks; the kernel of their shortcuts has the size ``shortcut``."""
    shapes = weight(names.stem, stem, 3, 3, 3)
    before = stem
    for group, width in enumerate(widths, start=names.first_group):
        for index in range(blocks):
            block = names.block.format(group, index)
            shapes |= bn(f"{block}.{names.norm[0]}", before) | weight(f"{block}.{names.conv[0]}", width, before, 3, 3)
            shapes |= bn(f"{block}.{names.norm[1]}", width) | weight(f"{block}.{names.conv[1]}", width, width, 3, 3)
            if before != width:
                shapes |= weight(f"{block}.{names.shortcut}", width, before, shortcut, shortcut)
            before = width
    return shapes | bn(names.last_norm, before) | affine(names.head, 100, before)


def wrn(depth: int, widen: int, names: Names = TRADES) -> Shapes:
    return preactivated(names, 16, (16 * widen, 32 * widen, 64 * widen), (depth - 4) // 6)


def preact_resnet18(first: int, names: Names = PREACT, shortcut: int = 1) -> Shapes:
    return preactivated(names, first, (first, 2 * first, 4 * first, 8 * first), 2, shortcut)


def small_cnn() -> Shapes:
    convolutions = affine("features.0", 16, 3, 3, 3) | affine("features.2", 32, 16, 3, 3)
    return convolutions | affine("features.4", 32, 32, 3, 3) | affine("classifier", 100, 32 * 16)


def vgg(*widths: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    before = 3
    for block, members in enumerate(widths):
        for index, width in enumerate(members):
            shapes |= affine(f"block{block}.{3 * index}", width, before, 3, 3)
            shapes |= bn(f"block{block}.{3 * index + 1}", width)
            before = width
    return shapes | affine("classifier", 100, before)


def mobilenetv2() -> Shapes:
    shapes = weight("conv1.0", 16, 3, 3, 3) | bn("conv1.1", 16)
    before = 16
    for group, widths in enumerate(([8], [12] * 2, [16] * 3, [32] * 4, [48] * 3, [80] * 3, [160])):
        for index, width in enumerate(widths):
            name, middle = f"blocks.{group}.{index}.conv", before * (6 if group else 1)
            shapes |= weight(f"{name}.0", middle, before, 1, 1) | bn(f"{name}.1", middle)
            shapes |= weight(f"{name}.3", middle, 1, 3, 3) | bn(f"{name}.4", middle)
            shapes |= weight(f"{name}.6", width, middle, 1, 1) | bn(f"{name}.7", width)
            before = width
    return shapes | weight("conv2.0", 1280, 160, 1, 1) | bn("conv2.1", 1280) | affine("classifier.0", 100, 1280)


def shufflev1() -> Shapes:
    shapes = weight("conv1", 24, 3, 1, 1) | bn("bn1", 24)
    for layer, (number, (before, width)) in enumerate(zip((4, 8, 4), pairwise((24, 240, 480, 960)), strict=True), 1):
        for index in range(number):
            block = f"layer{layer}.{index}"
            into, out = (before, width - before) if index == 0 else (width, width)
            shapes |= conv_bn(block, 1, out // 4, 24 if into == 24 else into // 3, 1, 1)
            shapes |= conv_bn(block, 2, out // 4, 1, 3, 3) | conv_bn(block, 3, out, out // 12, 1, 1)
    return shapes | affine("linear", 100, 960)


def shufflev2() -> Shapes:
    shapes = weight("conv1", 24, 3, 1, 1) | bn("bn1", 24)
    for layer, (number, (before, width)) in enumerate(zip((3, 7, 3), pairwise((24, 116, 232, 464)), strict=True), 1):
        half, block = width // 2, f"layer{layer}.0"
        shapes |= conv_bn(block, 1, before, 1, 3, 3) | conv_bn(block, 2, half, before, 1, 1)
        shapes |= conv_bn(block, 3, half, before, 1, 1) | conv_bn(block, 4, half, 1, 3, 3)
        shapes |= conv_bn(block, 5, half, half, 1, 1)
        for index in range(1, number + 1):
            block = f"layer{layer}.{index}"
            shapes |= conv_bn(block, 1, half, half, 1, 1) | conv_bn(block, 2, half, 1, 3, 3)
            shapes |= conv_bn(block, 3, half, half, 1, 1)
    return shapes | weight("conv2", 1024, 464, 1, 1) | bn("bn2", 1024) | affine("linear", 100, 1024)


def mobilenetv1() -> Shapes:
    shapes = weight("model.0.0", 32, 3, 3, 3) | bn("model.0.1", 32)
    widths = (32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024, 1024)
    for index, (before, width) in enumerate(pairwise(widths), start=1):
        name = f"model.{index}"
        shapes |= weight(f"{name}.0", before, 1, 3, 3) | bn(f"{name}.1", before)
        shapes |= weight(f"{name}.3", width, before, 1, 1) | bn(f"{name}.4", width)
    return shapes | affine("fc", 1000, 1024)


EXPECTED: dict[str, tuple[int, Shapes]] = {  # number of tensors in the checkpoint, and their shapes
    "cifar_resnet8": (56, resnet(1, 16, 16)),
    "cifar_resnet14": (92, resnet(2, 16, 16)),
    "cifar_resnet20": (128, resnet(3, 16, 16)),
    "cifar_resnet32": (200, resnet(5, 16, 16)),
    "cifar_resnet44": (272, resnet(7, 16, 16)),
    "cifar_resnet56": (344, resnet(9, 16, 16)),
    "cifar_resnet110": (668, resnet(18, 16, 16)),
    "cifar_resnet8x4": (62, resnet(1, 32, 64)),
    "cifar_resnet32x4": (206, resnet(5, 32, 64)),
    "cifar_resnet18": (122, imagenet_resnet((2, 2, 2, 2), 1)),
    "cifar_resnet50": (320, imagenet_resnet((3, 4, 6, 3), 4)),
    "cifar_wrn_16_1": (82, wrn(16, 1)),
    "cifar_wrn_16_2": (83, wrn(16, 2)),
    "cifar_wrn_40_1": (226, wrn(40, 1)),
    "cifar_wrn_40_2": (227, wrn(40, 2)),
    "wrn34_10": (191, wrn(34, 10)),
    "wrn34_20": (191, wrn(34, 20)),
    "wrn28_10": (155, wrn(28, 10)),
    "wrn16_2": (83, wrn(16, 2)),
    "wrn10_2": (47, wrn(10, 2)),
    "wrn28_10_swish": (155, wrn(28, 10, DEEPMIND)),
    "wrn70_16_swish": (407, wrn(70, 16, DEEPMIND)),
    "wrn10_2_swish": (47, wrn(10, 2, DEEPMIND)),
    "preact_resnet18": (107, preact_resnet18(64)),
    "preact_resnet18_w16": (107, preact_resnet18(16)),
    "preact_resnet18_swish": (107, preact_resnet18(64, ROBUSTBENCH, shortcut=3)),
    "small_cnn": (8, small_cnn()),
    "cifar_vgg8": (37, vgg((64,), (128,), (256,), (512,), (512,))),
    "cifar_vgg11": (58, vgg((64,), (128,), (256,) * 2, (512,) * 2, (512,) * 2)),
    "cifar_vgg13": (72, vgg((64,) * 2, (128,) * 2, (256,) * 2, (512,) * 2, (512,) * 2)),
    "cifar_vgg16": (93, vgg((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)),
    "cifar_vgg19": (114, vgg((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)),
    "cifar_mobilenetv2": (320, mobilenetv2()),
    "cifar_shufflev1": (296, shufflev1()),
    "cifar_shufflev2": (338, shufflev2()),
    "mobilenetv1": (164, mobilenetv1()),
}

PUBLISHED = {  # parameters
    "cifar_resnet8": 83_892,
    "cifar_resnet14": 181_108,
    "cifar_resnet20": 278_324,
    "cifar_resnet32": 472_756,
    "cifar_resnet56": 861_620,
    "cifar_resnet110": 1_736_564,
    "cifar_resnet8x4": 1_233_540,
    "cifar_resnet32x4": 7_433_860,
    "cifar_resnet18": 11_220_132,
    "cifar_resnet50": 23_705_252,
    "cifar_wrn_16_2": 703_284,
    "cifar_wrn_40_1": 569_780,
    "cifar_wrn_40_2": 2_255_156,
    "wrn34_10": 46_218_164,
    "wrn28_10_swish": 36_536_884,
    "wrn16_2": 703_284,
    "cifar_vgg8": 3_965_028,
    "cifar_vgg13": 9_462_180,
    "cifar_mobilenetv2": 812_836,
    "cifar_shufflev1": 949_258,
    "cifar_shufflev2": 1_355_528,
    "mobilenetv1": 4_231_976,
}


@pytest.mark.parametrize("name", EXPECTED)
def test_keys_shapes_and_sizes_are_those_of_the_checkpoints(name: str) -> None:
    with torch.device("meta"):
        model = create_model(name, 1000 if name == "mobilenetv1" else 100, in_chans=3)
    tensors, expected = EXPECTED[name]
    state = model.state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == expected
    assert len(state) == tensors
    assert count(model) == PUBLISHED.get(name, count(model))


@pytest.mark.parametrize(
    ("name", "size"), [("wrn34_10", 46_160_474), ("wrn28_10", 36_479_194), ("wrn28_10_swish", 36_479_194)]
)
def test_sizes_at_ten_classes_are_the_published_ones(name: str, size: int) -> None:
    with torch.device("meta"):
        assert count(create_model(name, 10)) == size

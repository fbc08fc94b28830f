"""Wide residual networks have exactly the keys and shapes of the official checkpoints."""

from dataclasses import dataclass

import pytest
import torch

from dkl.models import create_model

Shapes = dict[str, tuple[int, ...]]


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


def batchnorm(name: str, width: int) -> Shapes:
    vectors = {f"{name}.{key}": (width,) for key in ("weight", "bias", "running_mean", "running_var")}
    return {**vectors, f"{name}.num_batches_tracked": ()}


def expected(names: Names, blocks: int, widths: tuple[int, int, int], classes: int) -> Shapes:
    shapes: Shapes = {f"{names.stem}.weight": (16, 3, 3, 3)}
    before = 16
    for group, width in enumerate(widths):
        for block in range(blocks):
            name = names.block.format(group + names.first_group, block)
            shapes |= batchnorm(f"{name}.{names.norm[0]}", before) | batchnorm(f"{name}.{names.norm[1]}", width)
            shapes[f"{name}.{names.conv[0]}.weight"] = (width, before, 3, 3)
            shapes[f"{name}.{names.conv[1]}.weight"] = (width, width, 3, 3)
            if block == 0:
                shapes[f"{name}.{names.shortcut}.weight"] = (width, before, 1, 1)
            before = width
    shapes |= batchnorm(names.last_norm, before)
    return {**shapes, f"{names.head}.weight": (classes, before), f"{names.head}.bias": (classes,)}


@pytest.mark.parametrize(
    ("model", "classes", "names", "blocks", "tensors"),
    [
        ("wrn34_10", 100, TRADES, 5, 191),
        ("wrn28_10", 10, TRADES, 4, 155),
        ("wrn28_10_swish", 10, DEEPMIND, 4, 155),
        ("wrn28_10_swish", 100, DEEPMIND, 4, 155),
    ],
)
def test_keys_and_shapes_are_the_official_ones(
    model: str, classes: int, names: Names, blocks: int, tensors: int
) -> None:
    with torch.device("meta"):
        state = create_model(model, classes).state_dict()
    assert len(state) == tensors
    assert {key: tuple(value.shape) for key, value in state.items()} == expected(
        names, blocks, (160, 320, 640), classes
    )

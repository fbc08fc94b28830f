"""Artificial images of budget smoke: noisy patterns, or scenes of digits if pixels have labels."""

from collections.abc import Sequence
from typing import Annotated

from dkl.data.images.image_set import ImageSet
from dkl.data.sources.labeled_pixels import digit_scenes
from dkl.data.sources.noisy_patterns import noisy_patterns
from dkl.validation import CLASSES, COUNT, LABEL, SIDE


def generated(
    shape: Annotated[Sequence[int], SIDE],
    num_classes: Annotated[int, CLASSES],
    ignore_index: Annotated[int | None, LABEL] = None,
    *,
    train_size: Annotated[int, COUNT] = 32,
    test_size: Annotated[int, COUNT] = 16,
) -> tuple[ImageSet, ImageSet]:
    """Make images of ``shape`` (C, H, W); with an ``ignore_index`` they have masks."""
    if ignore_index is None:
        return noisy_patterns(shape, num_classes, train_size, test_size)
    return digit_scenes(shape[1:], num_classes, ignore_index, train_size=train_size, test_size=test_size)

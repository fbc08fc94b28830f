"""Artificial images for runs that only show that everything works: each class is a random pattern plus noise."""

from collections.abc import Sequence
from typing import Annotated

import torch

from dkl.data.images.in_memory import Images
from dkl.validation import CLASSES, COUNT, SIDE

CLASSES_SHOWN = 4


def noisy_patterns(
    shape: Annotated[Sequence[int], SIDE],
    num_classes: Annotated[int, CLASSES],
    train_size: Annotated[int, COUNT] = 32,
    test_size: Annotated[int, COUNT] = 16,
) -> tuple[Images, Images]:
    """Make uint8 images of ``shape`` (C, H, W), identical at every call.

    Labels cycle through the first ``CLASSES_SHOWN`` classes only, so that a model soon classifies some images
    correctly and attacks have something to attack.
    """
    noise, shown = torch.Generator().manual_seed(0), min(num_classes, CLASSES_SHOWN)
    patterns = torch.randint(64, 192, (shown, *shape), generator=noise)

    def split(size: int) -> Images:
        labels = torch.arange(size) % shown
        images = patterns[labels] + torch.randint(-64, 64, (size, *shape), generator=noise)
        return Images(images.to(torch.uint8), labels)

    return split(train_size), split(test_size)

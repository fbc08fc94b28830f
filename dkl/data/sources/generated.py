"""Generated images, for runs that only show that everything works: a class is a pattern, an image it and noise."""

from collections.abc import Sequence

import torch

from dkl.data.images.memory import Images

SHOWN = 4


def generated(
    shape: Sequence[int], num_classes: int, train_size: int = 32, test_size: int = 16
) -> tuple[Images, Images]:
    """A training and a test split of uint8 images of ``shape`` (C, H, W), always the same.

    Labels go round the first ``SHOWN`` classes, so that some are guessed right and attacks have something to attack.
    """
    noise, shown = torch.Generator().manual_seed(0), min(num_classes, SHOWN)
    patterns = torch.randint(64, 192, (shown, *shape), generator=noise)

    def split(size: int) -> Images:
        labels = torch.arange(size) % shown
        images = patterns[labels] + torch.randint(-64, 64, (size, *shape), generator=noise)
        return Images(images.to(torch.uint8), labels)

    return split(train_size), split(test_size)

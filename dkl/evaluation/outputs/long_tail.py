"""Accuracy on classes with many, medium and few training images (Liu et al. 2019, ImageNet-LT).

The accuracy of a group is the mean over its classes, as in the field's code. Groups are formed by the number of
training images per label: more than 100 is many, fewer than 20 is few.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dkl.data import shot_groups

TAIL = 2
"""The least ratio of the largest to the smallest class of a long tail; below it classes are only slightly uneven."""


def accuracy_per_shot(correct: NDArray[np.bool_], labels: Tensor, train_counts: Tensor) -> dict[str, float] | None:
    """Return the accuracy of each group from ``correct[N]``, ``labels[N]`` and ``train_counts[C]``.

    Classes without test images are ignored, and groups without classes are left out. None if the training images have
    no long tail, or if only one group has classes.
    """
    if train_counts.max() < TAIL * train_counts.min():
        return None
    classes, truth = len(train_counts), labels.numpy()
    tests = np.bincount(truth, minlength=classes)
    right = np.bincount(truth[correct], minlength=classes)
    # The mean is over classes, so a class without test images has no accuracy to add.
    groups = {name: mask.numpy() & (tests > 0) for name, mask in shot_groups(train_counts).items()}
    found = {name: float((right[mask] / tests[mask]).mean()) for name, mask in groups.items() if mask.any()}
    return found if len(found) > 1 else None

"""Accuracy of classes with many, a medium number of, and few training images (Liu et al. 2019, ImageNet-LT).

A group's figure is the mean of its classes' accuracies, as in the field's code. Training images are those of the data
set as the run's configuration reads it, counted by label: over 100 are many, under 20 few.
"""

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dkl.data import shots

TAIL = 2
"""How many times the images of its smallest class the largest must have: less is a split that is not quite even."""


def per_shot(correct: NDArray[np.bool_], labels: Tensor, per_class: Tensor) -> dict[str, float] | None:
    """Mean accuracy of each group's classes; ``correct[n]`` and ``labels[n]`` of tests, ``per_class[C]`` of training.

    A class without test images counts in no group, and a group without classes is left out. None where training has no
    long tail, or one group alone has classes.
    """
    if per_class.max() < TAIL * per_class.min():
        return None
    classes, truth = len(per_class), labels.numpy()
    tests = np.bincount(truth, minlength=classes)
    right = np.bincount(truth[correct], minlength=classes)
    groups = {name: mask.numpy() & (tests > 0) for name, mask in shots(per_class).items()}
    found = {name: float((right[mask] / tests[mask]).mean()) for name, mask in groups.items() if mask.any()}
    return found if len(found) > 1 else None

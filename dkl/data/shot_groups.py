"""Many-, medium- and few-shot classes of a long-tailed dataset (Liu et al. 2019).

A class has many shots if it has over 100 training images, few if it has under 20, and a medium number otherwise.
"""

from torch import Tensor

MANY_ABOVE, FEW_BELOW = 100, 20  # training images per class


def shot_groups(per_class: Tensor) -> dict[str, Tensor]:
    """Group classes by training images ``per_class[C]``: a bool mask [C] for each of ``many``, ``medium``, ``few``."""
    many, few = per_class > MANY_ABOVE, per_class < FEW_BELOW
    return {"many": many, "medium": ~many & ~few, "few": few}

"""When AutoAttack's attacks count an image as fooled."""

from torch import Tensor


def is_misclassified(logits: Tensor, y: Tensor) -> Tensor:
    """Whether the largest of ``logits[B, C]`` is not that of the label ``y[B]``, ``[B]``.

    Logits that are not finite are misclassified: the argmax of NaN is class 0, which may be the label.
    """
    return (logits.argmax(1) != y) | ~logits.isfinite().all(1)

"""APD's prototype terms and its KL in NumPy, pixel by pixel, from the description of the official code.

Written from recipes.md section 12 and the released train.py: class means of normalized adapted features over the pixels
of the nearest-neighbor mask, cosines times 10 as logits, ``nn.KLDivLoss()`` as a mean over all elements.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def _unit(vector: Floats) -> Floats:
    return vector / np.sqrt((vector**2).sum())


def _softmax(values: Floats) -> Floats:
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def _nearest(mask: NDArray[np.integer], height: int, width: int) -> NDArray[np.integer]:
    rows = [int(np.floor(i * mask.shape[0] / height)) for i in range(height)]
    columns = [int(np.floor(j * mask.shape[1] / width)) for j in range(width)]
    return np.array([[mask[i, j] for j in columns] for i in rows])


def prototype_terms(student: Floats, teacher: Floats, masks: NDArray[np.integer], ignore: int) -> tuple[float, float]:
    """KL and alignment of adapted features ``[B, D, h, w]`` and masks ``[B, H, W]``."""
    batch, _, height, width = student.shape
    small = [_nearest(mask, height, width) for mask in masks]
    pixels = [(b, i, j) for b in range(batch) for i in range(height) for j in range(width)]
    present = sorted({int(small[b][i, j]) for b, i, j in pixels} - {ignore})
    centers: list[list[Floats]] = []
    for features in (student, teacher):
        own = []
        for label in present:
            members = [_unit(features[b, :, i, j]) for b, i, j in pixels if small[b][i, j] == label]
            own.append(_unit(np.mean(members, axis=0)))
        centers.append(own)
    total = 0.0
    for b, i, j in pixels:
        logits = [
            np.array([10 * _unit(features[b, :, i, j]) @ center for center in own])
            for features, own in zip((student, teacher), centers, strict=True)
        ]
        q, p = _softmax(logits[0]), _softmax(logits[1])
        total += float((p * (np.log(p) - np.log(q))).sum())
    kl = total / (len(pixels) * len(present))
    align = float(np.mean([0.5 * (1 - one @ other) for one, other in zip(*centers, strict=True)]))
    return kl, align


def kl_div_mean(teacher: Floats, student: Floats) -> float:
    """``nn.KLDivLoss()`` of softmaxes of logits ``[B, C, H, W]``: the mean over all elements, ignored pixels too."""
    total = 0.0
    for b in range(teacher.shape[0]):
        for i in range(teacher.shape[2]):
            for j in range(teacher.shape[3]):
                p, q = _softmax(teacher[b, :, i, j]), _softmax(student[b, :, i, j])
                total += float((p * (np.log(p) - np.log(q))).sum())
    return total / teacher.size

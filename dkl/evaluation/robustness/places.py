"""Places of images in AutoAttack's batches, which decide the random draws that they get.

Before each attack the images that are still correct are cut into batches, in order, and every batch is attacked from
the same seed. Square for Linf draws by the length of the batch and the place in it only, so part of a batch can be
attacked with the draws of the whole.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dkl.attacks import Perturb
from dkl.evaluation.robustness.progress import Bools

PerturbChosen = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Maps images ``[B, ...]``, labels ``[B]`` and their indices ``[B]`` among all images to adversarial images."""


def cut(correct: Bools, batch_size: int) -> tuple[Tensor, ...]:
    """Cut the indices of the images that are ``correct[N]`` into batches, as AutoAttack does before each attack."""
    return torch.from_numpy(correct).nonzero().squeeze(1).split(batch_size) if correct.any() else ()


def places(correct: Bools, batch_size: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The place of each image in its batch and the length of that batch, ``[N]`` each; of no use if not correct."""
    number = np.cumsum(correct) - 1
    whole = correct.sum() // batch_size * batch_size
    return number % batch_size, np.where(number < whole, batch_size, correct.sum() - whole)


def calls_per_batch(correct: Bools, batch_size: int) -> int:
    """How often ``placed`` calls the attack on a batch at most: once per length of the batches of ``correct[N]``."""
    return len({len(batch) for batch in cut(correct, batch_size)}) or 1


def unplaced(perturb: Perturb) -> PerturbChosen:
    """An attack whose draws do not depend on the places of images, or that gets whole batches."""
    return lambda x, y, chosen: perturb(x, y)


def placed(perturb: Perturb, correct: Bools, batch_size: int) -> PerturbChosen:
    """Square for Linf, with the draws of the batches into which ``correct[N]`` is cut."""
    place, length = (torch.from_numpy(array) for array in places(correct, batch_size))

    def attack(x: Tensor, y: Tensor, chosen: Tensor) -> Tensor:
        result = x.clone()
        for each in length[chosen].unique().tolist():
            same = length[chosen] == each
            result[same] = perturb(x[same], y[same], places=place[chosen[same]], length=each)
        return result

    return attack

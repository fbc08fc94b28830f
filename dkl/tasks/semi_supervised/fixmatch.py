"""FixMatch (Sohn et al. 2020): the network's confident prediction on a weak view is the target of the strong view.

As in USB with ``use_cat``, one forward takes labeled, weak and strong images, so that BatchNorm sees all of them. The
pair loss decides what the weak prediction gets: a hard label or a soft target stops its gradient, and the wMSE of IKL
does not.
"""

import torch
from torch import Tensor

from dkl.data import Unlabeled
from dkl.tasks.semi_supervised.consistency import ConsistencyTraining


class FixMatch(ConsistencyTraining):
    """One network makes the targets and learns them."""

    def logits(self, images: Tensor, unlabeled: Unlabeled) -> tuple[Tensor, Tensor, Tensor]:
        """All logits from one forward."""
        logits = self.model(torch.cat([images, unlabeled.weak, unlabeled.strong]))
        labeled, weak, strong = logits.split([len(images), len(unlabeled.weak), len(unlabeled.strong)])
        return labeled, weak, strong

"""PGD adversarial training (Madry et al. 2018): cross-entropy on adversarial images only.

    loss = CE(adversarial logits, y)

There is one forward in train mode, so BatchNorm sees adversarial images only. ``task=pgd_at`` sets
``attack.objective=null`` (the attack raises the cross-entropy) and ``attack.sigma=null`` (it starts uniformly in the
ball). With ``awp`` this is AT-AWP (Wu et al. 2020).
"""

from typing import Annotated

import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, make_output
from dkl.tasks.base import Output
from dkl.validation import FRACTION, SEED, check_arguments


class PGDTraining(AdversarialTraining):
    """Cross-entropy of ``model``, smoothed by ``label_smoothing`` in [0, 1), on images that ``attack`` makes.

    Smoothing is spread over all classes. All views of an image have the same weight. ``seed`` fixes the attack's noise.
    Raises UserError if there is no attack, or if a setting is out of range.
    """

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | None,
        *,
        awp: AWP | None = None,
        label_smoothing: Annotated[float, FRACTION] = 0.0,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        super().__init__(model, attack, awp=awp, seed=seed)
        self.label_smoothing = label_smoothing

    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        adversarial = self.model(adversarial_images)
        loss = F.cross_entropy(adversarial, batch.labels, label_smoothing=self.label_smoothing)
        return make_output(loss, batch, adversarial_images, adversarial=adversarial)

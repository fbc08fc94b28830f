"""Adversarial training as Madry et al. (2018) do it: cross-entropy on adversarial images, and nothing else.

    loss = CE(adversarial logits, y)

One forward in train mode, so that BatchNorm sees adversarial images only. The attack raises the cross-entropy with
``attack.objective=null``, from a uniform start with ``attack.sigma=null``, as ``task=pgd_at`` sets both. With
``awp`` it is AT-AWP (Wu et al. 2020).
"""

from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.errors import UserError
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, report, smoothed_cross_entropy
from dkl.tasks.base import Output


class PGDTraining(AdversarialTraining):
    """Cross-entropy of ``model``, smoothed by ``label_smoothing`` in [0, 1), on images that ``attack`` makes.

    All views of an image count alike. ``seed`` fixes the attack's noise, whose state is the task's.
    """

    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | None,
        *,
        awp: AWP | None = None,
        label_smoothing: float = 0.0,
        seed: int = 0,
    ) -> None:
        if not 0 <= label_smoothing < 1:
            raise UserError(f"task.label_smoothing={label_smoothing} must lie in [0, 1)")
        super().__init__(model, attack, awp=awp, seed=seed)
        self.label_smoothing = label_smoothing

    def _output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        adversarial = self.model(adversarial_images)
        loss = smoothed_cross_entropy(adversarial, batch.labels, self.label_smoothing)
        return report(loss, batch, adversarial_images, adversarial=adversarial)

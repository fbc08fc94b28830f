"""TRADES-style adversarial training with any pair loss, in the order of operations of the official code.

    loss = CE(natural logits, y) + pair loss(natural logits, adversarial logits, weights)

One step is that of ``AdversarialTraining``: in train mode it forwards the adversarial, then the natural images, and adds
the natural predictions to the class prior, which changes at the end of the epoch. With two views of every image the
pair loss of the second is weighted.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dkl.attacks import TrainingAttack
from dkl.data import Batch
from dkl.distributed import sum_over_ranks
from dkl.errors import UserError
from dkl.losses import ClassPrior, PairLoss
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, report, smoothed_cross_entropy
from dkl.tasks.base import Output


class TradesTraining(AdversarialTraining):
    """Adversarial training of ``model`` with ``loss`` on adversarial images that ``attack`` makes.

    ``prior_temperature`` softens the natural predictions that enter the class prior (the paper's tau, official ``--T``) and
    nothing else; ``prior_momentum`` is the official m. ``awp`` perturbs weights. ``label_smoothing`` is the natural
    cross-entropy's. ``aug_weight`` weights the pair loss of a second view (official ``--gamma`` in v1, ``--aug_weight``
    in v2). ``natural_first`` forwards the natural images before the adversarial ones, and ``bn_warm_start`` sets
    BatchNorm's running statistics to the first batch's; DM-Improves-AT does both. ``seed`` fixes the attack's noise.
    The prior, and the state of the noise, belong to the task's state.
    """

    keeps_prior = True

    def __init__(
        self,
        model: nn.Module,
        loss: PairLoss | None,
        attack: TrainingAttack | None,
        *,
        num_classes: int,
        prior_temperature: float = 4.0,
        prior_momentum: float = 1.0,
        awp: AWP | None = None,
        label_smoothing: float = 0.0,
        aug_weight: float = 0.3,
        natural_first: bool = False,
        bn_warm_start: bool = False,
        seed: int = 0,
    ) -> None:
        self._check(loss, attack, prior_temperature, label_smoothing, aug_weight)
        super().__init__(model, attack, awp=awp, bn_warm_start=bn_warm_start, seed=seed)
        parameter = next(model.parameters())
        self.loss, self.prior_temperature, self.natural_first = loss, prior_temperature, natural_first
        self.label_smoothing, self.aug_weight = label_smoothing, aug_weight
        self.prior = ClassPrior(num_classes, prior_momentum, parameter.dtype).to(parameter.device)

    def _check(
        self, loss: Any, attack: Any, prior_temperature: float, label_smoothing: float, aug_weight: float
    ) -> None:
        if not loss or not attack:
            raise UserError(
                "adversarial training needs a loss and an attack: choose loss=ikl and attack=pgd, or others"
            )
        if prior_temperature <= 0:
            raise UserError(f"task.prior_temperature must be above 0, not {prior_temperature}")
        if not 0 <= label_smoothing < 1 or aug_weight < 0:
            raise UserError(
                f"task.label_smoothing={label_smoothing} must lie in [0, 1), task.aug_weight={aug_weight} not below 0"
            )

    def _weights(self, loss: PairLoss, labels: Tensor) -> Tensor | None:
        return self.prior[labels] if loss.weighting == "class" else super()._weights(loss, labels)

    def forward(self, batch: Batch, adversarial_images: Tensor) -> tuple[Tensor, Tensor]:
        """Natural and adversarial logits, each from a forward pass of its own, as BatchNorm sees them."""
        if self.natural_first:
            natural = self.model(batch.images)
            return natural, self.model(adversarial_images)
        adversarial = self.model(adversarial_images)
        return self.model(batch.images), adversarial

    def criterion(self, natural: Tensor, adversarial: Tensor, batch: Batch, second_view: float) -> Tensor:
        """The loss of both logits; the pair loss of view 2 counts ``second_view`` times."""
        assert self.loss is not None
        robust = torch.zeros((), device=natural.device)
        per_view = zip(natural.chunk(batch.views), adversarial.chunk(batch.views), strict=True)
        for view, (clean, perturbed) in enumerate(per_view):
            labels = batch.labels.chunk(batch.views)[view]
            pair = self.loss(clean, perturbed, self._weights(self.loss, labels))
            robust = robust + (pair if view == 0 else second_view * pair)
        return smoothed_cross_entropy(natural, batch.labels, self.label_smoothing) + robust

    def _ascent(self, batch: Batch, adversarial_images: Tensor) -> Tensor:
        """The loss that AWP raises, in which all views of an image count alike."""
        natural, adversarial = self.forward(batch, adversarial_images)
        whole = batch._replace(views=1)
        return self.criterion(natural, adversarial, whole, 1.0)

    def _accumulate(self, natural: Tensor, batch: Batch) -> None:
        """Add the first view's softened natural predictions to the class prior."""
        first = len(batch.labels) // batch.views
        with torch.no_grad():
            softened = natural[:first].detach().to(self.prior.table.dtype) / self.prior_temperature
            self.prior.accumulate(softened.softmax(-1), batch.labels[:first])

    def _output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        """Both forwards, the class prior's share, and the loss."""
        natural, adversarial = self.forward(batch, adversarial_images)
        self._accumulate(natural, batch)
        loss = self.criterion(natural, adversarial, batch, self.aug_weight)
        return report(loss, batch, adversarial_images, natural=natural, adversarial=adversarial)

    def end_epoch(self) -> None:
        """Put this epoch's class means, over all processes, into use."""
        sum_over_ranks([self.prior.sums])
        self.prior.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The class prior and the state of the attack's noise."""
        return super().state_dict() | {"prior": self.prior.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back the class prior and the state of the attack's noise."""
        super().load_state_dict(state)
        self.prior.load_state_dict(state["prior"])

"""TRADES-style adversarial training with any pair loss, in the order of operations of the official code.

    loss = CE(natural logits, y) + pair loss(natural logits, adversarial logits)

A step is that of ``AdversarialTraining``: in train mode it forwards the adversarial, then the natural images. It adds
the natural predictions to the class prior, which changes at the end of the epoch.

Two views per image. The pair loss of the second view is weighted by ``aug_weight``. By default one forward takes both
views, so BatchNorm normalizes and tracks the mixture, unless it sees the batch in parts (``dkl.training.batch_norm``),
as in the official recipes. ``per_view_forward`` separates the views without parts: one forward per view, of which only
the first moves BatchNorm's buffers.
"""

from dataclasses import replace
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack, untracked_batch_norm
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import ClassPrior, PairLoss, check_pair_loss, gradient_norms, split_terms
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.adversarial.base import AdversarialTraining, make_output
from dkl.tasks.base import Output
from dkl.validation import CLASSES, FRACTION, PRIOR_MOMENTUM, SEED, TEMPERATURE, WEIGHT, check_arguments


class TradesTraining(AdversarialTraining):
    """Adversarial training of ``model`` with ``loss`` on adversarial images that ``attack`` makes.

    ``prior_temperature`` softens the natural predictions that enter the class prior (the paper's tau, official
    ``--T``); ``prior_momentum`` is the official m. ``awp`` perturbs weights. ``label_smoothing`` applies to the natural
    cross-entropy and is spread over all classes. ``aug_weight`` weights the pair loss of a second view (official
    ``--gamma`` in v1, ``--aug_weight`` in v2); ``per_view_forward`` forwards the views separately (see the module).
    ``natural_first`` forwards the natural images before the adversarial ones, and ``bn_warm_start`` sets BatchNorm's
    running statistics to those of the first batch; DM-Improves-AT does both. ``gradient_norms`` adds the mean norms of
    the gradients of the loss's two terms at the logits to the metrics, as ``wmse_gradient`` and ``ce_gradient``.
    ``seed`` fixes the attack's noise. Raises UserError if a setting is out of range.
    """

    keeps_prior = True
    prior: ClassPrior

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        loss: PairLoss | None,
        attack: TrainingAttack | None,
        *,
        num_classes: Annotated[int, CLASSES],
        prior_temperature: Annotated[float, TEMPERATURE] = 4.0,
        prior_momentum: Annotated[float, PRIOR_MOMENTUM] = 1.0,
        awp: AWP | None = None,
        label_smoothing: Annotated[float, FRACTION] = 0.0,
        aug_weight: Annotated[float, WEIGHT] = 0.3,
        per_view_forward: bool = False,
        natural_first: bool = False,
        bn_warm_start: bool = False,
        gradient_norms: bool = False,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        if not loss or not attack:
            raise UserError(
                "adversarial training needs a loss and an attack: choose loss=ikl and attack=pgd, or others"
            )
        super().__init__(model, attack, awp=awp, bn_warm_start=bn_warm_start, seed=seed)
        if per_view_forward and attack.batch_norm == "batch":
            raise UserError(
                "task.per_view_forward=true does not separate the views in an attack on batch statistics: set "
                "attack.batch_norm=running, or task.per_view_forward=false"
            )
        self.loss, self.prior_temperature = check_pair_loss(loss), prior_temperature
        self.label_smoothing, self.aug_weight = label_smoothing, aug_weight
        self.per_view_forward, self.natural_first = per_view_forward, natural_first
        self.gradient_norms = gradient_norms
        if gradient_norms:
            try:
                split_terms(self.loss)
            except TypeError as error:
                raise UserError(f"task.gradient_norms=true: {error}, or set task.gradient_norms=false") from None
        parameter = next(model.parameters())
        self.prior = ClassPrior(num_classes, prior_momentum, parameter.dtype).to(parameter.device)

    def _logits(self, images: Tensor, views: int) -> Tensor:
        """Logits ``[V·B, C]`` of ``images[V·B, ...]``, in one forward or in one per view."""
        if views == 1 or not self.per_view_forward:
            return self.model(images)
        first, *others = images.chunk(views)
        logits = [self.model(first)]
        # Running statistics follow the first view only, which the first official GPU holds.
        with untracked_batch_norm(self.model):
            logits += [self.model(view) for view in others]
        return torch.cat(logits)

    def forward(self, batch: Batch, adversarial_images: Tensor) -> tuple[Tensor, Tensor]:
        """Natural and adversarial logits, from separate forward passes, so that BatchNorm sees them separately."""
        if self.natural_first:
            natural = self._logits(batch.images, batch.views)
            return natural, self._logits(adversarial_images, batch.views)
        adversarial = self._logits(adversarial_images, batch.views)
        return self._logits(batch.images, batch.views), adversarial

    def _pair_loss(self, natural: Tensor, adversarial: Tensor, labels: Tensor, share: float) -> Tensor:
        return self.loss(natural, adversarial, **self._arguments(self.loss, natural, labels, share))

    def _natural_loss(self, natural: Tensor, batch: Batch) -> Tensor:
        return F.cross_entropy(natural, batch.labels, label_smoothing=self.label_smoothing)

    def ascent(self, batch: Batch, adversarial_images: Tensor) -> Tensor:
        """The loss that AWP raises, in which all views of an image have the same weight."""
        natural, adversarial = self.forward(batch, adversarial_images)
        robust = self._pair_loss(natural, adversarial, batch.labels, batch.share)
        return self._natural_loss(natural, batch) + robust

    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        """Both forwards, the loss, and the first view's natural predictions into the class prior."""
        natural, adversarial = self.forward(batch, adversarial_images)
        views = (values.chunk(batch.views) for values in (natural, adversarial, batch.labels))
        first, *others = (self._pair_loss(n, a, labels, batch.share) for n, a, labels in zip(*views, strict=True))
        robust = sum((self.aug_weight * other for other in others), first)
        # Only the basic view enters the prior, as in the official code.
        size = len(batch.labels) // batch.views
        self.prior.observe(natural[:size], batch.labels[:size], self.prior_temperature)
        loss = self._natural_loss(natural, batch) + robust
        out = make_output(loss, batch, adversarial_images, natural=natural, adversarial=adversarial)
        return replace(out, sums={**out.sums, **self._gradients(natural, adversarial, batch)})

    def _gradients(self, natural: Tensor, adversarial: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The sum over all views of each term's gradient norms, if they are wanted."""
        if not self.gradient_norms:
            return {}
        wanted = self._arguments(self.loss, natural.detach(), batch.labels, batch.share)
        norms = gradient_norms(self.loss, natural, adversarial, **wanted)
        return {f"{term}_gradient": values.sum() for term, values in norms.items()}

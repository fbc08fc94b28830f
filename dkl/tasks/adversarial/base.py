"""What tasks that train on adversarial images share: attack, perturbed weights, order of a step. The loss is theirs.

One step: attack; in train mode perturb the weights (AWP) and forward; differentiate and step (the loop does); take the
weights' perturbation off.

Unlike the official codes, the natural logits that an attack's objective may need are computed once an attack and
without a graph, not once a step with one, and parameters are frozen during the attack. Both leave every number as it
was.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import (
    AttackBudget,
    TrainingAttack,
    batch_norm_momentum,
    frozen_eval,
    gaussian_noise,
    pgd,
    uniform_noise,
)
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import PairLoss
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.base import Output, Progress, Task, count_correct


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with the label at 1 − ``smoothing`` and the other C − 1 classes sharing ``smoothing`` alike.

    Raises UserError above (C − 1)/C, where the label would count less than the others.
    """
    classes = logits.shape[-1]
    spread = smoothing * classes / max(classes - 1, 1)  # torch spreads over all classes, the label's included
    if spread > 1:
        raise UserError(f"task.label_smoothing={smoothing} is above {(classes - 1) / classes:g}, for {classes} classes")
    return F.cross_entropy(logits, labels, label_smoothing=spread)


def report(loss: Tensor, batch: Batch, adversarial_images: Tensor, **logits: Tensor) -> Output:
    """``loss``, and beside it how many of each kind of ``logits`` are right, as ``<kind>_correct``."""
    right = {f"{kind}_correct": count_correct(values, batch.labels) for kind, values in logits.items()}
    return Output(loss, right, adversarial_images)


class AdversarialTraining(Task, ABC):
    """Trains ``model`` on adversarial images that ``attack`` makes, at weights that ``awp`` perturbs.

    ``bn_warm_start`` sets BatchNorm's running statistics to the first batch's. ``seed`` fixes the attack's noise, whose
    state is the task's. Raises UserError without an attack, or with one that wants a class prior no one keeps.
    """

    keeps_prior: ClassVar[bool] = False

    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | None,
        *,
        awp: AWP | None = None,
        bn_warm_start: bool = False,
        seed: int = 0,
    ) -> None:
        name = type(self).__name__
        if not isinstance(attack, TrainingAttack):
            raise UserError(f"{name} trains on adversarial images and needs an attack: choose attack=pgd, or another")
        if attack.objective is not None and attack.objective.weighting == "class" and not self.keeps_prior:
            raise UserError(
                f"{name} keeps no class prior, which this attack's objective is weighted by: choose attack=pgd, or set "
                "attack.objective.weighting=sample"
            )
        self.model, self.attack, self.awp = model, attack, awp or AWP(gamma=0)
        self.bn_warm_start = bn_warm_start
        self.noise = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        self._drawn: tuple[tuple[int, int], Tensor] | None = None

    @abstractmethod
    def _output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        """Forward in train mode, and the loss."""

    def _ascent(self, batch: Batch, adversarial_images: Tensor) -> Tensor:
        """The loss that AWP raises; it moves no state."""
        return self._output(batch, adversarial_images).loss

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser trains."""
        return self.model.named_parameters()

    def _weights(self, loss: PairLoss, labels: Tensor) -> Tensor | None:
        """What ``loss`` takes third: rows of a class prior where it wants them and there is one, or the labels."""
        return labels if loss.weighting == "label" else None

    def _objective(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """What the attack raises, as a function of the adversarial logits; natural logits are computed here, once."""
        pair_loss = self.attack.objective
        if pair_loss is None:
            return lambda logits: F.cross_entropy(logits, batch.labels)
        with torch.no_grad():
            natural = self.model(batch.images)
        weights = self._weights(pair_loss, batch.labels)
        return lambda logits: pair_loss(natural, logits, weights)

    def _rewind(self, batch: Batch, progress: Progress) -> None:
        """Put the noise's generator back to where the step began, for all parts of a batch but the first."""
        if batch.share == 1:
            return
        place = (progress.epoch, progress.step)
        if self._drawn and self._drawn[0] == place:
            self.noise.set_state(self._drawn[1])
        else:
            self._drawn = place, self.noise.get_state()

    def _start(self, batch: Batch, budget: AttackBudget, progress: Progress) -> Tensor:
        """Where the attack begins: noise is drawn for the whole batch on every process, and each takes its share."""
        self._rewind(batch, progress)
        attack, images = self.attack, batch.images
        count = len(images) // batch.views
        shape = (batch.views * (batch.total or count), *images.shape[1:])
        if attack.sigma is None:
            noise = uniform_noise(shape, budget.eps, attack.norm, like=images, generator=self.noise)
        else:
            noise = gaussian_noise(shape, attack.sigma, like=images, generator=self.noise)
        mine = noise.unflatten(0, (batch.views, -1))[:, batch.first : batch.first + count].flatten(0, 1)
        start = images + mine
        return start.clamp_(0, 1) if attack.sigma is None else start

    def perturb(self, batch: Batch, progress: Progress) -> Tensor:
        """Adversarial images for ``batch`` at this epoch's attack budget."""
        attack, budget = self.attack, self.attack.at(progress.epoch, progress.epochs)
        with frozen_eval(self.model, attack.batch_norm):
            return pgd(
                self.model,
                batch.images,
                self._objective(batch),
                eps=budget.eps,
                step_size=budget.step_size,
                steps=budget.steps,
                norm=attack.norm,
                start=self._start(batch, budget, progress),
                batch_norm=attack.batch_norm,
            )

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch, attack included; weights are perturbed inside where AWP is on."""
        images = self.perturb(batch, progress)
        first = self.bn_warm_start and progress.epoch == 1 and progress.step == 0
        warm = batch_norm_momentum(self.model, 1.0) if first else nullcontext()
        ascent = partial(self._ascent, batch, images)
        with warm, self.awp.perturbed(self.model, ascent, epoch=progress.epoch, share=batch.share) as broken:
            yield self._output(batch, images) if broken is None else Output(broken, {}, images)

    def end_epoch(self) -> None:
        """Nothing to do."""

    def state_dict(self) -> dict[str, Any]:
        """The state of the attack's noise."""
        return {"noise": self.noise.get_state(), "device": self.noise.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back the state of the attack's noise."""
        if state["device"] == self.noise.device.type:  # generators differ: on another device noise starts anew
            self.noise.set_state(state["noise"].cpu())

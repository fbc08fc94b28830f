"""TRADES-style adversarial training with any pair loss, in the order of operations of the official code.

    loss = CE(natural logits, y) + pair loss(natural logits, adversarial logits, weights)

One step: attack; in train mode perturb the weights (AWP), forward the adversarial, then the natural images; add the
natural predictions to the class prior; differentiate and step (the loop does); take the weights' perturbation off; the
prior changes at the end of the epoch. With two views of every image the pair loss of the second is weighted.

Unlike the official code, the natural logits that the attack's objective needs are computed once an attack and without
a graph, not once a step with one, and parameters are frozen during the attack. Both leave every number as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import Budget, TrainingAttack, attack_mode, batch_norm_momentum, gaussian_noise, pgd, uniform_noise
from dkl.data import Batch
from dkl.distributed import sum_over_ranks
from dkl.errors import UserError
from dkl.losses import ClassPrior, PairLoss
from dkl.tasks.awp import AWP
from dkl.tasks.base import Output, Progress, count_correct


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Cross-entropy with the label at 1 − ``smoothing`` and the other C − 1 classes sharing ``smoothing`` alike."""
    classes = logits.shape[-1]
    return F.cross_entropy(logits, labels, label_smoothing=smoothing * classes / (classes - 1))


class AdversarialTraining:
    """Adversarial training of ``model`` with ``loss`` on adversarial images that ``attack`` makes.

    ``temperature`` softens the natural predictions that enter the class prior (the paper's tau, official ``--T``) and
    nothing else; ``prior_momentum`` is the official m. ``awp`` perturbs weights. ``label_smoothing`` is the natural
    cross-entropy's. ``aug_weight`` weights the pair loss of a second view (official ``--gamma`` in v1, ``--aug_weight``
    in v2). ``natural_first`` forwards the natural images before the adversarial ones, and ``bn_warm_start`` sets
    BatchNorm's running statistics to the first batch's; DM-Improves-AT does both. ``seed`` fixes the attack's noise.
    The prior, and the state of the noise, belong to the task's state.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: PairLoss | None,
        attack: TrainingAttack,
        *,
        num_classes: int,
        temperature: float = 4.0,
        prior_momentum: float = 1.0,
        awp: AWP | None = None,
        label_smoothing: float = 0.0,
        aug_weight: float = 0.3,
        natural_first: bool = False,
        bn_warm_start: bool = False,
        seed: int = 0,
    ) -> None:
        self._check(loss, attack, temperature, label_smoothing, aug_weight)
        parameter = next(model.parameters())
        self.model, self.loss, self.attack, self.temperature = model, loss, attack, temperature
        self.awp, self.label_smoothing, self.aug_weight = awp or AWP(gamma=0), label_smoothing, aug_weight
        self.natural_first, self.bn_warm_start = natural_first, bn_warm_start
        self.prior = ClassPrior(num_classes, prior_momentum, parameter.dtype).to(parameter.device)
        self.noise = torch.Generator(parameter.device).manual_seed(seed)

    def _check(self, loss: Any, attack: Any, temperature: float, label_smoothing: float, aug_weight: float) -> None:
        if not loss or not attack:
            raise UserError(
                "adversarial training needs a loss and an attack: choose loss=ikl and attack=pgd, or others"
            )
        if temperature <= 0:
            raise UserError(f"task.temperature must be above 0, not {temperature}")
        if not 0 <= label_smoothing < 1 or aug_weight < 0:
            raise UserError(
                f"task.label_smoothing={label_smoothing} must lie in [0, 1), task.aug_weight={aug_weight} not below 0"
            )

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What the optimiser trains."""
        return self.model.named_parameters()

    def _objective(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """What the attack raises, as a function of the adversarial logits; natural logits are computed here, once."""
        pair_loss = self.attack.objective
        if pair_loss is None:
            return lambda logits: F.cross_entropy(logits, batch.labels)
        with torch.no_grad():
            natural = self.model(batch.images)
        weights = self._weights(pair_loss, batch.labels)
        return lambda logits: pair_loss(natural, logits, weights)

    def _weights(self, loss: PairLoss, labels: Tensor) -> Tensor | None:
        return self.prior[labels] if loss.weighting == "class" else None

    def _start(self, batch: Batch, budget: Budget) -> Tensor:
        """Where the attack begins: noise is drawn for the whole batch on every process, and each takes its share."""
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
        with attack_mode(self.model, attack.batch_norm):
            return pgd(
                self.model,
                batch.images,
                self._objective(batch),
                eps=budget.eps,
                step_size=budget.step_size,
                steps=budget.steps,
                norm=attack.norm,
                start=self._start(batch, budget),
                batch_norm=attack.batch_norm,
            )

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
            softened = natural[:first].detach().to(self.prior.table.dtype) / self.temperature
            self.prior.accumulate(softened.softmax(-1), batch.labels[:first])

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch, attack included; weights are perturbed inside where AWP is on."""
        images = self.perturb(batch, progress)
        first = self.bn_warm_start and progress.epoch == 1 and progress.step == 0
        warm = batch_norm_momentum(self.model, 1.0) if first else nullcontext()
        ascent = lambda: self._ascent(batch, images)  # noqa: E731
        with warm, self.awp.perturbed(self.model, ascent, epoch=progress.epoch, share=batch.share):
            natural, adversarial = self.forward(batch, images)
            self._accumulate(natural, batch)
            yield Output(
                self.criterion(natural, adversarial, batch, self.aug_weight),
                {
                    "natural_correct": count_correct(natural, batch.labels),
                    "adversarial_correct": count_correct(adversarial, batch.labels),
                },
                images,
            )

    def end_epoch(self) -> None:
        """Put this epoch's class means, over all processes, into use."""
        sum_over_ranks([self.prior.sums])
        self.prior.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The class prior and the state of the attack's noise."""
        return {"prior": self.prior.state_dict(), "noise": self.noise.get_state(), "device": self.noise.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back the class prior and the state of the attack's noise."""
        self.prior.load_state_dict(state["prior"])
        if state["device"] == self.noise.device.type:  # generators differ: on another device noise starts anew
            self.noise.set_state(state["noise"].cpu())

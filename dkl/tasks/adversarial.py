"""TRADES-style adversarial training with any pair loss, in the order of operations of the official code.

    loss = CE(natural logits, y) + pair loss(natural logits, adversarial logits, weights)

One step: attack in eval mode; in train mode forward the adversarial, then the natural images; add the natural
predictions to the class prior; differentiate and step (the loop does); the prior changes at the end of the epoch.

Unlike the official code, the natural logits that the attack's objective needs are computed once an attack and without
a graph, not once a step with one, and parameters are frozen during the attack. Both leave every number as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import TrainingAttack, attack_mode, gaussian_start, pgd
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import ClassPrior, PairLoss
from dkl.tasks.base import Output, Progress, count_correct


class AdversarialTraining:
    """Adversarial training of ``model`` with ``loss`` on adversarial images that ``attack`` makes.

    ``temperature`` softens the natural predictions that enter the class prior (the paper's tau, official ``--T``) and
    nothing else; ``prior_momentum`` is the official m. ``seed`` fixes the attack's noise. The prior, and the state of
    the noise, belong to the task's state.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: PairLoss,
        attack: TrainingAttack,
        *,
        num_classes: int,
        temperature: float = 4.0,
        prior_momentum: float = 1.0,
        seed: int = 0,
    ) -> None:
        if not loss or not attack:
            raise UserError(
                "adversarial training needs a loss and an attack: choose loss=ikl and attack=pgd, or others"
            )
        if temperature <= 0:
            raise ValueError(f"temperature must be above 0, not {temperature}")
        parameter = next(model.parameters())
        self.model, self.loss, self.attack, self.temperature = model, loss, attack, temperature
        self.prior = ClassPrior(num_classes, prior_momentum, parameter.dtype).to(parameter.device)
        self.noise = torch.Generator(parameter.device).manual_seed(seed)

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

    def perturb(self, batch: Batch, progress: Progress) -> Tensor:
        """Adversarial images for ``batch`` at this epoch's attack budget."""
        attack, budget = self.attack, self.attack.at(progress.epoch, progress.epochs)
        start = None if attack.sigma is None else gaussian_start(batch.images, attack.sigma, self.noise)
        with attack_mode(self.model):
            return pgd(
                self.model,
                batch.images,
                self._objective(batch),
                eps=budget.eps,
                step_size=budget.step_size,
                steps=budget.steps,
                norm=attack.norm,
                start=start,
                generator=self.noise,
            )

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch, attack included."""
        adversarial_images = self.perturb(batch, progress)
        adversarial = self.model(adversarial_images)
        natural = self.model(batch.images)
        with torch.no_grad():
            softened = natural.detach().to(self.prior.table.dtype) / self.temperature
            self.prior.accumulate(softened.softmax(-1), batch.labels)
        robust = self.loss(natural, adversarial, self._weights(self.loss, batch.labels))
        yield Output(
            F.cross_entropy(natural, batch.labels) + robust,
            {
                "natural_correct": count_correct(natural, batch.labels),
                "adversarial_correct": count_correct(adversarial, batch.labels),
            },
        )

    def end_epoch(self) -> None:
        """Put this epoch's class means into use."""
        self.prior.end_epoch()

    def state_dict(self) -> dict[str, Any]:
        """The class prior and the state of the attack's noise."""
        return {"prior": self.prior.state_dict(), "noise": self.noise.get_state(), "device": self.noise.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back the class prior and the state of the attack's noise."""
        self.prior.load_state_dict(state["prior"])
        if state["device"] == self.noise.device.type:  # generators differ: on another device noise starts anew
            self.noise.set_state(state["noise"].cpu())

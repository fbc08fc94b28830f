"""The base of all tasks on adversarial images: the attack, perturbed weights, and the order of a step.

One step: attack; in train mode, perturb the weights (AWP), forward and compute the loss; differentiate and update (done
by the loop); remove the perturbation. Subclasses write the loss.

Two differences from the official code leave every number unchanged: the natural logits that an attack's objective needs
are computed once per attack and without a graph, not in each of its steps with one; and parameters are frozen during
the attack.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks import (
    AttackStrength,
    TrainingAttack,
    batch_norm_momentum,
    frozen_eval,
    gaussian_noise,
    pgd,
    uniform_noise,
)
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import BatchNormalized, PairLoss, check_pair_loss, wanted_arguments
from dkl.runtime.distributed import sum_over_ranks, world
from dkl.tasks.adversarial.awp import AWP
from dkl.tasks.base import Output, Progress, Task, count_correct
from dkl.validation import SEED


def make_output(loss: Tensor, batch: Batch, adversarial_images: Tensor, **logits: Tensor) -> Output:
    """``loss``, and for each kind of ``logits`` the number of correct predictions, as ``<kind>_correct``."""
    right = {f"{kind}_correct": count_correct(values, batch.labels) for kind, values in logits.items()}
    return Output(loss, right, adversarial_images)


class AdversarialTraining(Task):
    """Trains ``model`` on adversarial images that ``attack`` makes, at weights that ``awp`` perturbs.

    ``bn_warm_start`` sets BatchNorm's running statistics to those of the first batch. ``seed`` fixes the attack's
    noise, whose generator belongs to the task's state. A subclass writes ``output``. Raises UserError if there is no
    attack, or if its objective is weighted by a class prior that the task does not keep.
    """

    keeps_prior = False
    """Whether the task fills ``prior``."""

    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | None,
        *,
        awp: AWP | None = None,
        bn_warm_start: bool = False,
        seed: Annotated[int, SEED] = 0,
    ) -> None:
        name = type(self).__name__
        if not isinstance(attack, TrainingAttack):
            raise UserError(f"{name} trains on adversarial images and needs an attack: choose attack=pgd, or another")
        self.objective = None if attack.objective is None else check_pair_loss(attack.objective)
        if self.objective is not None and self.objective.weighting == "class" and not self.keeps_prior:
            raise UserError(
                f"{name} keeps no class prior, but the attack's objective is weighted by one: choose attack=pgd, or "
                "set attack.objective.weighting=sample"
            )
        self.model, self.attack, self.awp = model, attack, awp or AWP(gamma=0)
        self.bn_warm_start = bn_warm_start
        self.noise = torch.Generator(next(model.parameters()).device).manual_seed(seed)
        self._drawn: tuple[tuple[int, int], Tensor] | None = None

    @abstractmethod
    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        """Forward ``model`` in train mode on ``adversarial_images``, those of ``batch``; return the loss."""

    def ascent(self, batch: Batch, adversarial_images: Tensor) -> Tensor:
        """The loss that AWP raises; it changes no state."""
        return self.output(batch, adversarial_images).loss

    def _arguments(self, loss: PairLoss, natural: Tensor, labels: Tensor, share: float) -> dict[str, Tensor]:
        """The keyword arguments that ``loss`` wants for natural logits ``[B, C]``, this process's ``share`` of a batch.

        A loss that divides by a sum over the batch (GKL) gets the sum over all processes, as in the official code,
        whose loss sees the logits of all GPUs.
        """
        wanted = wanted_arguments(loss, labels, self.prior)
        if world() > 1 and isinstance(loss, BatchNormalized):
            total = loss.normalizer(natural.detach(), weights=wanted.get("weights"))
            total_and_shares = torch.stack([total, total.new_tensor(share)])
            sum_over_ranks([total_and_shares])
            total, shares = total_and_shares
            # The loop multiplies each process's loss by its share and sums. So that Σ share · (sum / normalizer) is
            # Σ sum / total, each normalizer is total · share. (Shares sum to less than 1 if batches are accumulated.)
            wanted["normalizer"] = total * (share / shares)
        return wanted

    def _objective(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """What the attack raises, as a function of the adversarial logits; computes the natural logits once."""
        pair_loss = self.objective
        if pair_loss is None:
            return lambda logits: F.cross_entropy(logits, batch.labels)
        with torch.no_grad():
            natural = self.model(batch.images)
        wanted = self._arguments(pair_loss, natural, batch.labels, batch.share)
        return lambda logits: pair_loss(natural, logits, **wanted)

    def _rewind(self, batch: Batch, progress: Progress) -> None:
        """Reset the noise's generator for each further part of a batch.

        With trainer.accumulate a batch arrives in parts, one call each. Every part draws the noise of the whole batch
        and takes its piece, so all parts of one step must start from the same generator state: the first part stores
        it, the others restore it. After the last part the generator has moved by one batch, as without parts.
        """
        if batch.share == 1:
            return
        place = (progress.epoch, progress.step)
        if self._drawn and self._drawn[0] == place:
            self.noise.set_state(self._drawn[1])
        else:
            self._drawn = place, self.noise.get_state()

    def _start(self, batch: Batch, strength: AttackStrength, progress: Progress) -> Tensor:
        """Where the attack begins: every process draws the whole batch's noise and takes its share."""
        self._rewind(batch, progress)
        attack, images = self.attack, batch.images
        count = len(images) // batch.views
        shape = (batch.views * (batch.total or count), *images.shape[1:])
        if attack.sigma is None:
            noise = uniform_noise(shape, strength.eps, attack.norm, like=images, generator=self.noise)
        else:
            noise = gaussian_noise(shape, attack.sigma, like=images, generator=self.noise)
        mine = noise.unflatten(0, (batch.views, -1))[:, batch.first : batch.first + count].flatten(0, 1)
        # A Gaussian start is not projected or clamped, as in TRADES; the first step projects.
        start = images + mine
        return start.clamp_(0, 1) if attack.sigma is None else start

    def perturb(self, batch: Batch, progress: Progress) -> Tensor:
        """Adversarial images for ``batch`` at this epoch's attack strength."""
        attack, strength = self.attack, self.attack.at(progress.epoch, progress.epochs)
        with frozen_eval(self.model, attack.batch_norm):
            return pgd(
                self.model,
                batch.images,
                self._objective(batch),
                eps=strength.eps,
                step_size=strength.step_size,
                steps=strength.steps,
                norm=attack.norm,
                start=self._start(batch, strength, progress),
                batch_norm=attack.batch_norm,
            )

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        """The loss of one batch, attack included; weights are perturbed inside if AWP is on."""
        images = self.perturb(batch, progress)
        first = self.bn_warm_start and progress.epoch == 1 and progress.step == 0
        warm = batch_norm_momentum(self.model, 1.0) if first else nullcontext()
        ascent = partial(self.ascent, batch, images)
        with warm, self.awp.perturbed(self.model, ascent, epoch=progress.epoch, share=batch.share) as broken:
            yield self.output(batch, images) if broken is None else Output(broken, {}, images)

    def state_dict(self) -> dict[str, Any]:
        """The task's state with that of the attack's noise."""
        return super().state_dict() | {"noise": self.noise.get_state(), "device": self.noise.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state)
        # Generators of CPU and GPU have different states: a run continued on the other device draws fresh noise.
        if state["device"] == self.noise.device.type:
            self.noise.set_state(state["noise"].cpu())

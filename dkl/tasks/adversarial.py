"""Adversarial training: the attack, perturbed weights (AWP), the order of a step, and TRADES-style training.

One step: attack; in train mode, perturb the weights (AWP), forward and compute the loss; differentiate and update (done
by the loop); remove the perturbation. Subclasses of ``AdversarialTraining`` write the loss. ``TradesTraining`` takes
any pair loss, in the order of operations of the official code,

    loss = CE(natural logits, y) + pair loss(natural logits, adversarial logits)

Two differences from the official code leave every number unchanged: the natural logits that an attack's objective needs
are computed once per attack and without a graph, not in each of its steps with one; and parameters are frozen during
the attack.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl import validation as allowed
from dkl.attacks import (
    AttackStrength,
    Objective,
    OwnTrainingAttack,
    TrainingAttack,
    batch_norm_momentum,
    batch_statistics,
    frozen_eval,
    gaussian_noise,
    pgd,
    uniform_noise,
    untracked_batch_norm,
)
from dkl.data import Batch
from dkl.data.seeding import seed_of
from dkl.errors import UserError
from dkl.losses.base import BatchNormalized, ClassPrior, PairLoss, check_pair_loss, observed_terms, wanted_arguments
from dkl.losses.divergences import gradient_norms, split_terms
from dkl.runtime.distributed import sum_over_ranks, world
from dkl.tasks.base import Output, Progress, Task, count_correct
from dkl.validation import check_arguments, check_fields


@dataclass(frozen=True, kw_only=True)
class AWP:
    """Adversarial weight perturbation (Wu et al. 2020), from epoch ``start`` on, counted from 1; ``gamma=0`` is off.

        v = γ · ‖w‖ · g / ‖g‖        for each weight tensor w with more than one dimension; norms over the whole tensor

    g is the gradient of the training loss. Training differentiates at w + v, and subtracts the same v after the
    optimizer's step.

    The official code computes v from a copy of the model ("proxy"): one step of SGD with rate r on the negative loss
    moves the copy by r·g, and v = γ · ‖w‖ · (r·g) / ‖r·g‖. The rate r cancels, so neither the copy nor its optimizer is
    needed: the gradient at the model itself gives the same v. The one thing the copy protected are BatchNorm's buffers,
    which the extra forward pass must not move; ``batch_statistics`` does that here.
    """

    gamma: Annotated[float, allowed.Range(0, 10, usual=(0, 0.05))] = 0.005
    start: Annotated[int, allowed.EPOCHS] = 10

    def __post_init__(self) -> None:
        check_fields(self, "task.awp")

    @contextmanager
    def perturbed(
        self, model: nn.Module, loss: Callable[[], Tensor], *, epoch: int, share: float = 1.0
    ) -> Iterator[Tensor | None]:
        """Add v to the weights of ``model`` inside, and subtract it on exit; the optimizer's step remains.

        v raises ``loss()``. It is called once, in train mode with BatchNorm's buffers unchanged, and is the mean over
        this process's ``share`` of the batch; gradients are summed over processes. Yields None. If the loss or v is
        not finite, the weights stay as they are and a non-finite loss is yielded.
        """
        if not self.gamma or epoch < self.start:
            yield None
            return
        named = model.named_parameters()
        weights: list[Tensor] = [w for name, w in named if "weight" in name and w.ndim > 1 and w.requires_grad]
        change, sizes = self._change(model, weights, loss, share)
        if not torch.isfinite(sizes).all():
            yield sizes.sum()
            return
        with torch.no_grad():
            torch._foreach_add_(weights, change)
        # Autocast caches bfloat16 copies of weights, and does not notice that the weights have changed in place.
        torch.clear_autocast_cache()
        try:
            yield None
        finally:
            with torch.no_grad():
                torch._foreach_sub_(weights, change)
            torch.clear_autocast_cache()

    def _change(
        self, model: nn.Module, weights: list[Tensor], loss: Callable[[], Tensor], share: float
    ) -> tuple[list[Tensor], Tensor]:
        """v, one tensor per weight tensor, and the norms of its tensors."""
        with batch_statistics(model), observed_terms():  # the log shows the terms of the training loss alone
            value = loss() * share
        with torch.autocast(value.device.type, enabled=False):
            gradients = list(torch.autograd.grad(value, weights))
        sum_over_ranks(gradients, weights)
        with torch.no_grad():
            # One launch for the norms of all tensors, and one per tensor for the product.
            lengths = torch.stack(torch._foreach_norm(gradients))
            # A weight without gradient is not perturbed: 0 / tiny is 0, but 0 / 0 would be NaN.
            tiny = torch.finfo(lengths.dtype).tiny
            factors = self.gamma * torch.stack(torch._foreach_norm(weights)) / lengths.clamp(min=tiny)
            torch._foreach_mul_(gradients, list(factors))
        return gradients, factors * lengths


def make_output(loss: Tensor, batch: Batch, adversarial_images: Tensor, **logits: Tensor) -> Output:
    """``loss``, and for each kind of ``logits`` the number of correct predictions, as ``<kind>_correct``."""
    right = {f"{kind}_correct": count_correct(values, batch.labels) for kind, values in logits.items()}
    return Output(loss, right, adversarial_images)


class AdversarialTraining(Task):
    """Trains ``model`` on adversarial images that ``attack`` makes, at weights that ``awp`` perturbs.

    ``bn_warm_start`` sets BatchNorm's running statistics to those of the first batch. ``seed`` fixes the attack's
    noise, whose generator belongs to the task's state. A subclass writes ``output``. ``attack`` may be a partial of a
    function of your own (see ``OwnTrainingAttack``), seeded by the place of its images. Raises UserError if there is no
    attack, or if its objective is weighted by a class prior that the task does not keep.
    """

    keeps_prior = False
    """Whether the task fills ``prior``."""

    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | partial[Tensor] | None,
        *,
        awp: AWP | None = None,
        bn_warm_start: bool = False,
        seed: Annotated[int, allowed.SEED] = 0,
    ) -> None:
        name = type(self).__name__
        chosen = OwnTrainingAttack(attack) if isinstance(attack, partial) else attack
        if not isinstance(chosen, TrainingAttack | OwnTrainingAttack):
            raise UserError(f"{name} trains on adversarial images and needs an attack: choose attack=pgd, or another")
        self.objective = None if chosen.objective is None else check_pair_loss(chosen.objective)
        if self.objective is not None and self.objective.weighting == "class" and not self.keeps_prior:
            raise UserError(
                f"{name} keeps no class prior, but the attack's objective is weighted by one: choose attack=pgd, or "
                "set attack.objective.weighting=sample"
            )
        self.model, self.attack, self.awp = model, chosen, awp or AWP(gamma=0)
        self.bn_warm_start, self.seed = bn_warm_start, seed
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
            shares = total.new_tensor(share)
            sum_over_ranks([total, shares])
            # The loop multiplies each process's loss by its share and sums. So that Σ share · (sum / normalizer) is
            # Σ sum / total, each normalizer is total · share. (Shares sum to less than 1 if batches are accumulated.)
            wanted["normalizer"] = total * (share / shares)
        return wanted

    def _objective(self, batch: Batch) -> Objective:
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

    def _start(self, attack: TrainingAttack, batch: Batch, strength: AttackStrength, progress: Progress) -> Tensor:
        """Where the attack begins: every process draws the whole batch's noise and takes its share."""
        self._rewind(batch, progress)
        images = batch.images
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

    def attacked(self) -> nn.Module:
        """The network whose output the attack's objective takes."""
        return self.model

    def perturb(self, batch: Batch, progress: Progress) -> Tensor:
        """Adversarial images for ``batch`` at this epoch's attack strength."""
        attack, network = self.attack, self.attacked()
        if isinstance(attack, OwnTrainingAttack):
            seed = seed_of(self.seed, progress.epoch, progress.step, batch.first)
            return attack(self.model, batch.images, batch.labels, seed=seed)
        strength = attack.at(progress.epoch, progress.epochs)
        with frozen_eval(network, attack.batch_norm), observed_terms():
            return pgd(
                network,
                batch.images,
                self._objective(batch),
                eps=strength.eps,
                step_size=strength.step_size,
                steps=strength.steps,
                norm=attack.norm,
                start=self._start(attack, batch, strength, progress),
                batch_norm=attack.batch_norm,
            )

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        images = self.perturb(batch, progress)
        first = self.bn_warm_start and progress.epoch == 1 and progress.step == 0
        warm = batch_norm_momentum(self.model, 1.0) if first else nullcontext()
        ascent = partial(self.ascent, batch, images)
        with warm, self.awp.perturbed(self.model, ascent, epoch=progress.epoch, share=batch.share) as broken:
            yield self.output(batch, images) if broken is None else Output(broken, {}, images)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"noise": self.noise.get_state(), "device": self.noise.device.type}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        # Generators of CPU and GPU have different states: a run continued on the other device draws fresh noise.
        if state["device"] == self.noise.device.type:
            self.noise.set_state(state["noise"].cpu())


class TradesTraining(AdversarialTraining):
    """Adversarial training of ``model`` with ``loss`` on adversarial images that ``attack`` makes.

    In train mode a step forwards the adversarial, then the natural images. It adds the natural predictions to the class
    prior, which changes at the end of the epoch.

    Two views per image. The pair loss of the second view is weighted by ``aug_weight`` (official ``--gamma`` in v1,
    ``--aug_weight`` in v2). By default one forward takes both views, so BatchNorm normalizes and tracks the mixture,
    unless it sees the batch in parts (``trainer.batch_norm_share``), as in the official recipes. ``per_view_forward``
    separates the views without parts: one forward per view, of which only the first moves BatchNorm's buffers.

    ``prior_temperature`` softens the natural predictions that enter the class prior (the paper's tau, official
    ``--T``); ``prior_momentum`` is the official m. ``awp`` perturbs weights. ``label_smoothing`` applies to the natural
    cross-entropy and is spread over all classes. ``natural_first`` forwards the natural images before the adversarial
    ones, and ``bn_warm_start`` sets BatchNorm's running statistics to those of the first batch; DM-Improves-AT does
    both. ``gradient_norms`` adds the mean norms of the gradients of the loss's two terms at the logits to the metrics,
    as ``wmse_gradient`` and ``ce_gradient``. ``seed`` fixes the attack's noise. Raises UserError if a setting is out of
    range.
    """

    keeps_prior = True
    prior: ClassPrior

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        loss: PairLoss | None,
        attack: TrainingAttack | partial[Tensor] | None,
        *,
        num_classes: Annotated[int, allowed.CLASSES],
        prior_temperature: Annotated[float, allowed.TEMPERATURE] = 4.0,
        prior_momentum: Annotated[float, allowed.PRIOR_MOMENTUM] = 1.0,
        awp: AWP | None = None,
        label_smoothing: Annotated[float, allowed.FRACTION] = 0.0,
        aug_weight: Annotated[float, allowed.WEIGHT] = 0.3,
        per_view_forward: bool = False,
        natural_first: bool = False,
        bn_warm_start: bool = False,
        gradient_norms: bool = False,
        seed: Annotated[int, allowed.SEED] = 0,
    ) -> None:
        if not loss or not attack:
            raise UserError(
                "adversarial training needs a loss and an attack: choose loss=ikl and attack=pgd, or others"
            )
        super().__init__(model, attack, awp=awp, bn_warm_start=bn_warm_start, seed=seed)
        if per_view_forward and self.attack.batch_norm != "running":
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
        if not self.gradient_norms:
            return out
        wanted = self._arguments(self.loss, natural.detach(), batch.labels, batch.share)
        norms = gradient_norms(self.loss, natural, adversarial, **wanted)
        return replace(out, sums={**out.sums, **{f"{term}_gradient": values.sum() for term, values in norms.items()}})

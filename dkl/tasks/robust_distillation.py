"""Adversarial robustness distillation: a robust teacher trains a student on adversarial images of the student.

    loss = Σ_k weight_k · ramp_k(e) · mean_i [ sample_weight_k,i · loss_k,i(target_k, student_k) ]

The sum is over the terms that are active in epoch e of E. Each method is a choice of terms and of the attack's target:
``configs/task`` has ARD, RSLAD, AKD2, IAD, AdaAD, AdaIAD, IGDM, SAAD and MTARD, and docs/robust_distillation.md lists
them. With δ = x' − x, a network's logits are called

    natural      net(x)
    adversarial  net(x')
    mirrored     net(x − δ)
    difference   net(x') − net(x − δ)    twice the derivative along δ (IGDM, Lee et al. 2025)

The networks are the student, the ``teacher`` and a ``natural_teacher``, which was trained on natural images. Teachers
never get a gradient. In train mode a step forwards the student's adversarial, mirrored and natural images, in this
order, as far as the terms need them.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Annotated, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl import validation as allowed
from dkl.attacks import Objective, OwnTrainingAttack, TrainingAttack, named_attack
from dkl.console import say
from dkl.data import Batch
from dkl.errors import UserError, choose_from
from dkl.losses import ClassPrior, PairLoss, RowLoss
from dkl.models import fingerprint
from dkl.runtime.distributed import mean_over_ranks, sum_over_ranks, world
from dkl.tasks.adversarial import AWP, AdversarialTraining, make_output
from dkl.tasks.base import Output, Progress, top1
from dkl.tasks.distillation.logits import check_same_teacher, frozen_teacher, teacher_accuracy
from dkl.tasks.distillation.terms import (
    IMAGES,
    KINDS,
    NETWORKS,
    SAMPLE_WEIGHTS,
    Term,
    WeightSettings,
    checked_terms,
    losses_of,
)
from dkl.threat import parse_eps
from dkl.validation import check_arguments

ADVERSARIAL = "teacher.adversarial"

LINEARIZED = "teacher.linearized"
"""The attack's target t + ⟨∇t_y, x' − x⟩ at the label y, and t elsewhere (SAAD)."""

ATTACK_TARGETS = ("student.natural", "teacher.natural", ADVERSARIAL, LINEARIZED)

ROBUST_IMAGES = 1000
"""Test images on which the teacher is attacked before training."""

ROBUST_SHARE = 1 / 3
"""A teacher whose PGD-10 accuracy is a smaller share of its natural accuracy is reported as not robust."""


class _TargetPriors(ClassPrior):
    """The class priors of several targets in one table: that of target k has the rows from k·C on."""

    def __init__(self, targets: int, num_classes: int, prior_momentum: float, dtype: torch.dtype) -> None:
        super().__init__(num_classes, prior_momentum, dtype)
        self.table = self.table.repeat(targets, 1)
        self.sums = self.sums.repeat(targets, 1)


class _Attacked(nn.Module):
    """The student beside what its attack's target needs: the teacher's logits of the same images, or the images."""

    def __init__(self, student: nn.Module, other: nn.Module) -> None:
        super().__init__()
        self.student, self.other = student, other

    def train(self, mode: bool = True) -> "_Attacked":
        """Change the student's mode only: the teacher stays in eval mode."""
        self.student.train(mode)
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return self.student(images), self.other(images)


class RobustDistillation(AdversarialTraining):
    """Trains ``model`` by ``terms`` on images that ``attack`` makes, with a ``teacher`` if a term or the attack needs
    one.

    ``loss`` is that of every term without its own. The attack raises ``attack.objective`` from ``attack_target``, one
    of ``ATTACK_TARGETS``, to the student's logits of the attacked images, or the labels' cross-entropy if the objective
    is None. ``awp`` perturbs weights. A class-weighted loss takes the prior of its own target: the mean predictions of
    the epoch before, softened by ``prior_temperature`` and blended by ``prior_momentum``.

    ``trust_power``, ``entropy_scale`` and ``entropy_order`` are settings of ``SAMPLE_WEIGHTS``; entropies of a batch in
    parts (several processes, ``trainer.accumulate``) are compared within each part. With ``balance_rate`` r each of the
    K terms has a further weight v_k, which begins at 1/K and moves by r · (ℓ_k / Σ ℓ − v_k) before every step; ℓ_k is
    its loss relative to that of the first step (MTARD, Zhao et al. 2022). ``natural_forward`` forwards the natural
    images even if no term needs them, so that BatchNorm sees them.

    Teachers stay frozen and in eval mode; the task's state has their fingerprints, not their weights. Raises UserError
    if a term, the attack or a teacher does not fit the others.
    """

    keeps_prior = True

    @check_arguments("task")
    def __init__(
        self,
        model: nn.Module,
        attack: TrainingAttack | None,
        terms: Mapping[str, Term] | None,
        *,
        num_classes: Annotated[int, allowed.CLASSES],
        teacher: nn.Module | None = None,
        natural_teacher: nn.Module | None = None,
        loss: PairLoss | None = None,
        attack_target: str = "student.natural",
        awp: AWP | None = None,
        prior_temperature: Annotated[float, allowed.TEMPERATURE] = 4.0,
        prior_momentum: Annotated[float, allowed.PRIOR_MOMENTUM] = 1.0,
        trust_power: Annotated[float, allowed.Range(0, 10)] = 0.1,
        entropy_scale: Annotated[float, allowed.WEIGHT] = 5.0,
        entropy_order: Annotated[float, allowed.Range(0, 100, above=True)] = 1.0,
        balance_rate: Annotated[float, allowed.FRACTION] = 0.0,
        natural_forward: bool = False,
        seed: Annotated[int, allowed.SEED] = 0,
    ) -> None:
        super().__init__(model, attack, awp=awp, seed=seed)
        self.num_classes, self.attack_target, self.natural_forward = num_classes, attack_target, natural_forward
        self.weight_settings = WeightSettings(trust_power, entropy_scale, entropy_order)
        self.terms = checked_terms(terms)
        self.losses = losses_of(self.terms, loss)
        teachers = {"teacher": teacher, "natural_teacher": natural_teacher}
        given = {key: network for key, network in teachers.items() if network is not None}
        self.fingerprints = {key: fingerprint(network) for key, network in given.items()}
        self.teachers = {key: frozen_teacher(network, model) for key, network in given.items()}
        self.accuracies: dict[str, float] = {}
        of_class = {self.terms[key].target for key, one in self.losses.items() if one and one.weighting == "class"}
        self.prior_targets, self.prior_temperature = sorted(of_class), prior_temperature
        parameter = next(model.parameters())
        if of_class:
            self.prior = _TargetPriors(len(of_class), num_classes, prior_momentum, parameter.dtype)
            self.prior.to(parameter.device)
        self._check_attack()
        self._check_teachers()
        self.balance_rate, count = balance_rate, len(self.terms)
        if balance_rate and any(not term.active(1) or term.before_epoch for term in self.terms.values()):
            raise UserError(
                f"task.balance_rate={balance_rate} balances terms of all epochs: set it to 0, or drop epochs"
            )
        self.balance = torch.full((count,), 1 / count, dtype=torch.float64, device=parameter.device)
        self.first_losses: Tensor | None = None
        self._progress, self._known = Progress(1, 1), dict[tuple[str, str], Tensor]()

    def _check_attack(self) -> None:
        """Raise UserError if the attack's target or step does not fit."""
        attack, target = self.attack, self.attack_target
        if target not in ATTACK_TARGETS:
            raise UserError(f"task.attack_target={target}: {choose_from(target, ATTACK_TARGETS)}")
        if self.objective is None and target != ATTACK_TARGETS[0]:
            raise UserError(
                f"task.attack_target={target} is for an attack with attack.objective, which this one has not: choose "
                f"one, such as attack=pgd, or set task.attack_target={ATTACK_TARGETS[0]}"
            )
        if isinstance(attack, OwnTrainingAttack):  # which checks its images itself
            return
        strength = attack.at(1, 1)
        if strength.step_size > 2 * strength.eps:
            raise UserError(
                f"attack.relative_step={attack.relative_step} at attack.eps={attack.eps}: a step above 2·eps ends in a "
                "corner of the ball wherever it starts; set attack.relative_step to at most 2, such as 0.25"
            )
        if self.objective and self.objective.weighting == "class" and target not in self.prior_targets:
            raise UserError(
                f"attack.objective is weighted by the class prior of {target}, which no term has: set "
                "attack.objective.weighting=sample"
            )

    def _check_teachers(self) -> None:
        """Raise UserError if a term or the attack needs a teacher that is not given."""
        needed = {name: {network for network, _ in term.logits} for name, term in self.terms.items() if term.weight}
        if self.objective:
            needed["attack_target"] = {self.attack_target.partition(".")[0]}
        for name, networks in needed.items():
            for key in networks - {"student", *self.teachers}:
                raise UserError(
                    f"{type(self).__name__}: {name} needs task.{key}: set task.{key}.name=NETWORK and its weights, "
                    f"such as task.{key}.run=FOLDER"
                )

    def before_training(self, testing: Iterable[Batch], training: Iterable[Batch] = ()) -> None:
        """Print and keep the teachers' accuracies: natural, and under PGD-10 that of ``teacher``.

        Warns if that teacher is not robust. Raises UserError if a teacher is no better than chance. A resumed run has
        them already.
        """
        if self.accuracies:
            return
        for key, network in self.teachers.items():
            name = self.fingerprints[key][:8]
            self.accuracies[f"{key}_accuracy"] = teacher_accuracy(network, name, testing, self.num_classes)
        if "teacher" in self.teachers:
            self._measure_robustness(testing)

    def _measure_robustness(self, testing: Iterable[Batch]) -> None:
        """Attack the teacher by PGD-10 on the first batches; print and keep its accuracy."""
        teacher, attack = self.teachers["teacher"], self.attack
        perturb = named_attack(teacher, "pgd-10", norm=attack.norm, eps=parse_eps(attack.eps), seed=0)
        flags: list[Tensor] = []
        for batch in testing:
            with torch.no_grad():
                flags.append(top1(teacher(perturb(batch.images, batch.labels)), batch.labels).cpu())
            if sum(map(len, flags)) >= ROBUST_IMAGES // world():
                break
        robust, count = mean_over_ranks(torch.cat(flags))
        natural = self.accuracies["teacher_accuracy"]
        self.accuracies["teacher_pgd10_accuracy"] = robust
        text = f"PGD-10 accuracy {robust:.2%} on {count} test images at eps {attack.eps}"
        say(f"teacher {type(teacher).__name__} {self.fingerprints['teacher'][:8]}: {text}")
        if robust < ROBUST_SHARE * natural:
            say(
                f"warning: the teacher is not robust, {text} of {natural:.2%} natural: its student will hardly be "
                "either; give an adversarially trained teacher"
            )

    def test(self, model: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """The accuracy of ``model``, and those of the teachers beside the student's."""
        return super().test(model, batches) | (self.accuracies if model is self.model else {})

    @contextmanager
    def step(self, batch: Batch, progress: Progress) -> Iterator[Output]:
        self._progress, self._known = progress, {}
        with super().step(batch, progress) as out:
            yield out

    def _wanted(self, loss: PairLoss, target: str, logits: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The keyword arguments that ``loss`` wants for the ``logits`` of ``target``."""
        labels = batch.labels
        if loss.weighting == "class":
            labels = labels + self.num_classes * self.prior_targets.index(target)
        return self._arguments(loss, logits, labels, batch.share)

    @torch.no_grad()
    def _teacher_logits(self, network: str, kind: str, images: Tensor) -> Tensor:
        """The logits of a teacher, computed once per step."""
        key = (network, kind)
        if key not in self._known:
            self._known[key] = self.teachers[network](images)
        return self._known[key]

    def attacked(self) -> nn.Module:
        """The student, beside what the attack's target needs of every image that the attack visits."""
        if self.objective is None or self.attack_target not in (ADVERSARIAL, LINEARIZED):
            return self.model
        return _Attacked(self.model, self.teachers["teacher"] if self.attack_target == ADVERSARIAL else nn.Identity())

    def _objective(self, batch: Batch) -> Objective:
        """What the attack raises, as a function of what ``attacked`` returns."""
        loss, target = self.objective, self.attack_target
        if loss is None:
            return super()._objective(batch)
        if target in (ADVERSARIAL, LINEARIZED):
            change = self._linearization(batch) if target == LINEARIZED else nn.Identity()

            def moving(pair: tuple[Tensor, Tensor]) -> Tensor:
                student, moved = pair[0], change(pair[1])
                return loss(moved, student, **self._wanted(loss, target, moved, batch))

            return moving
        if target == "student.natural":
            with torch.no_grad():
                fixed = self.model(batch.images)
        else:
            fixed = self._teacher_logits("teacher", "natural", batch.images)
        wanted = self._wanted(loss, target, fixed, batch)
        return lambda logits: loss(fixed, logits, **wanted)

    def _linearization(self, batch: Batch) -> Callable[[Tensor], Tensor]:
        """The teacher's natural logits with that of the label continued along its gradient, as a function of images."""
        images, labels = batch.images.detach().requires_grad_(), batch.labels.unsqueeze(1)
        with torch.enable_grad():
            logits = self.teachers["teacher"](images)
            (slope,) = torch.autograd.grad(logits.gather(1, labels).sum(), images)
        images, logits = images.detach(), logits.detach()
        self._known["teacher", "natural"] = logits

        def moved(adversarial: Tensor) -> Tensor:
            change = (slope * (adversarial - images)).flatten(1).sum(1, keepdim=True)
            return logits.scatter_add(1, labels, change.to(logits.dtype))

        return moved

    def _active(self) -> dict[str, Term]:
        return {name: term for name, term in self.terms.items() if term.active(self._progress.epoch)}

    def _logits(self, batch: Batch, adversarial_images: Tensor) -> dict[str, Tensor]:
        """The logits that the terms of this epoch need, by network and kind."""
        natural = batch.images
        images = dict(zip(IMAGES, (adversarial_images, natural - (adversarial_images - natural), natural), strict=True))
        needed = set[tuple[str, str]]().union(*(term.logits for term in self._active().values()))
        if self.natural_forward:
            needed.add(("student", "natural"))
        found = {}
        for kind in IMAGES:
            for network in NETWORKS:
                if (network, kind) in needed:
                    student = network == "student"
                    forward = self.model if student else partial(self._teacher_logits, network, kind)
                    found[f"{network}.{kind}"] = forward(images[kind])
        for network in NETWORKS:
            if f"{network}.mirrored" in found:
                difference = found[f"{network}.adversarial"] - found[f"{network}.mirrored"]
                found[f"{network}.difference"] = difference
        return found

    def _value(self, name: str, logits: Mapping[str, Tensor], batch: Batch) -> Tensor:
        """The mean over samples of the term ``name``, without its factor."""
        term, loss = self.terms[name], self.losses[name]
        student = logits[f"student.{term.student}"]
        weights = None
        if term.sample_weight:
            certain = logits[ADVERSARIAL]
            certain = certain.to(torch.promote_types(certain.dtype, torch.float32))
            weights = SAMPLE_WEIGHTS[term.sample_weight](certain, batch.labels, self.weight_settings)
        if loss is None:
            rows = F.cross_entropy(student, batch.labels, reduction="mean" if weights is None else "none")
            return rows if weights is None else (weights * rows).mean()
        target = logits[term.target]
        wanted = self._wanted(loss, term.target, target, batch)
        if weights is None:
            return loss(target, student, **wanted)
        assert isinstance(loss, RowLoss)
        return (weights * loss.rows(target, student, **wanted)).mean()

    def _total(self, values: Mapping[str, Tensor]) -> Tensor:
        """The sum of the terms with their factors."""
        factors = [self.terms[name].factor(self._progress, self.num_classes) for name in values]
        parts = [factor * value for factor, value in zip(factors, values.values(), strict=True)]
        if self.balance_rate:
            parts = [share * part for share, part in zip(self.balance.to(parts[0].dtype), parts, strict=True)]
        return sum(parts[1:], parts[0])

    def _values(self, logits: Mapping[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        return {name: self._value(name, logits, batch) for name in self._active()}

    def ascent(self, batch: Batch, adversarial_images: Tensor) -> Tensor:
        return self._total(self._values(self._logits(batch, adversarial_images), batch))

    def output(self, batch: Batch, adversarial_images: Tensor) -> Output:
        """All forwards and the loss; the class-weighted targets enter their priors."""
        logits = self._logits(batch, adversarial_images)
        values = self._values(logits, batch)
        if self.balance_rate:
            self._rebalance(torch.stack(list(values.values())), batch.share)
        loss = self._total(values)
        for place, target in enumerate(self.prior_targets):
            if target in logits and self.prior is not None:
                self.prior.observe(logits[target], batch.labels + place * self.num_classes, self.prior_temperature)
        kinds = {kind: logits[f"student.{kind}"] for kind in KINDS[:2] if f"student.{kind}" in logits}
        return make_output(loss, batch, adversarial_images, **kinds)

    @torch.no_grad()
    def _rebalance(self, losses: Tensor, share: float) -> None:
        """Move the weights of MTARD by the ``losses`` of this process's ``share`` of the batch.

        A batch in parts moves them once per part, each time by the share of all processes in it.
        """
        losses, shares = losses.double() * share, losses.new_tensor(share, dtype=torch.float64)
        sum_over_ranks([losses, shares])
        losses = losses / shares
        if self.first_losses is None:
            self.first_losses = losses
        relative = losses / self.first_losses
        self.balance = self.balance + self.balance_rate * shares * (relative / relative.sum() - self.balance)

    def state_dict(self) -> dict[str, Any]:
        """The task's state with the teachers' fingerprints and accuracies, and the moving weights."""
        state = {"accuracies": self.accuracies, "balance": self.balance, "first_losses": self.first_losses}
        return super().state_dict() | {"teacher": None, **self.fingerprints} | state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned. Raises UserError if the run began with another teacher."""
        for key, now in self.fingerprints.items():
            check_same_teacher(state[key], now, f"task.{key}")
        super().load_state_dict(state)
        self.accuracies, device = dict(state["accuracies"]), self.balance.device
        self.balance = state["balance"].to(device)
        first = state["first_losses"]
        self.first_losses = None if first is None else first.to(device)

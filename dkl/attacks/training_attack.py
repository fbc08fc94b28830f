"""The attack of training: its strength per epoch, as pure functions of progress, and its objective.

The official code ramps eps linearly, eps_e = eps · e / E with epochs e from 1 to E. Its ``high`` budget was meant to
take 2, 3, 4 and 5 steps in the four quarters of training, but its ``if`` branches overwrite each other and always leave
5 steps of eps_e / 2. Schedules:

    official      what the official code does: always 5 steps of eps_e / 2
    as_intended   what it was meant to do
    low           the default of its parser: 2 steps of eps_e
    fixed         PGD with given ``steps`` and ``relative_step``
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, get_args

from torch import Tensor

from dkl.attacks.contexts import BatchNorm
from dkl.errors import UserError
from dkl.threat import Norm, parse_eps, parse_threat
from dkl.validation import STEPS, Range, check_fields

Rule = Callable[[float], tuple[int, float]]
"""From the share of training done, in (0, 1], to the number of steps and the step size in units of the epoch's eps."""


RULES: dict[str, Rule] = {
    "official": lambda done: (5, 0.5),
    "as_intended": lambda done: (
        (2, 1.0) if done <= 0.25 else (3, 2 / 3) if done <= 0.5 else (4, 0.5) if done <= 0.75 else (5, 0.5)
    ),
    "low": lambda done: (2, 1.0),
}


@dataclass(frozen=True)
class AttackStrength:
    """The attack's strength in one epoch: radius and step size in pixel units of [0, 1], and the number of steps."""

    eps: float
    step_size: float
    steps: int


@dataclass(frozen=True, kw_only=True)
class TrainingAttack:
    """Settings of the training attack; ``at(epoch, epochs)`` is its strength, ``objective`` the loss that it raises.

    ``objective`` is a pair loss of the natural and adversarial logits, or None for the cross-entropy of the labels
    (Madry). ``sigma`` is the standard deviation of the Gaussian start; None starts uniformly in the ball. ``schedule``
    is a key of ``RULES``, or ``"fixed"``, which needs ``steps`` and ``relative_step`` (in units of the epoch's eps). In
    L2 the schedules keep their number of steps and take steps of 2·eps/steps, as TRADES does. ``ramp`` grows eps
    linearly over training. ``batch_norm="batch"`` attacks with the batch's statistics, as DM-Improves-AT does, and
    ``"train"`` in train mode, as ARD does. Raises UserError on invalid values.
    """

    eps: str | float
    norm: Norm = "linf"
    schedule: str = "official"
    ramp: bool = True
    sigma: Annotated[float | None, Range(0, 1)] = 0.001
    objective: Callable[..., Tensor] | None = None
    steps: Annotated[int | None, STEPS] = None
    relative_step: Annotated[float | None, Range(0, 1000)] = None
    batch_norm: BatchNorm = "running"

    def __post_init__(self) -> None:
        check_fields(self, "attack")
        parse_threat(self.norm, self.eps, "attack.")
        if self.batch_norm not in get_args(BatchNorm):
            raise UserError(f"attack.batch_norm={self.batch_norm!r} must be one of {', '.join(get_args(BatchNorm))}")
        if self.schedule == "fixed":
            if self.steps is None or self.relative_step is None:
                raise UserError("attack.schedule=fixed needs attack.steps and attack.relative_step, both at least 0")
        elif self.schedule not in RULES:
            raise UserError(f"attack.schedule={self.schedule!r} must be one of {', '.join(RULES)}, fixed")
        elif self.steps is not None or self.relative_step is not None:
            raise UserError(
                f"attack.schedule={self.schedule} fixes its steps: remove attack.steps and attack.relative_step, or "
                "set attack.schedule=fixed"
            )

    def at(self, epoch: int, epochs: int) -> AttackStrength:
        """The strength in ``epoch``, counted from 1, of ``epochs``. Raises ValueError if there is no such epoch."""
        if not 1 <= epoch <= epochs:
            raise ValueError(f"epoch={epoch} must be from 1 to {epochs}")
        done = epoch / epochs  # never 0: the first epoch already attacks
        eps = parse_eps(self.eps) * (done if self.ramp else 1.0)
        if self.schedule == "fixed":
            assert self.steps is not None
            assert self.relative_step is not None
            return AttackStrength(eps, self.relative_step * eps, self.steps)
        steps, relative = RULES[self.schedule](done)
        if self.norm == "l2":  # enough to cross the ball once, whatever the number of steps
            relative = 2 / steps
        return AttackStrength(eps, relative * eps, steps)

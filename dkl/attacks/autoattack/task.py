"""What is attacked and how: a network, images, labels and a plan of attacks."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from dkl.attacks.autoattack.classifier import (
    Classifier,
    as_module,
    blamed,
    checked_images,
    device_of,
    first_output,
    scaled,
    search_model,
)
from dkl.attacks.contexts import frozen_eval
from dkl.attacks.pgd import Perturb
from dkl.errors import UserError
from dkl.storage.checkpoint import weights_sha256
from dkl.storage.files import check_writable, digest, write_atomically
from dkl.threat import ATTACKS, AUTOATTACK, EVALUATED_NORMS, NORM_TITLES, EvaluatedNorm, known_attack, parse_threat

_KNOWN_BY = 8
"""The number of images whose logits identify a network."""

_NUMBERS = {2: "two", 3: "three", 4: "four"}

_MODULE_KEYS = vars(nn.Module()).keys()
"""Attributes that every module has, such as ``training``."""


@dataclass(frozen=True)
class AttackPlan(ABC):
    """The settings that decide the flags of an evaluation, and how its attacks are made.

    ``n`` images are taken, balanced over classes, or all if it is None. ``eps_text`` is the radius as people write it.
    With ``package`` the authors' code of AutoAttack runs, not ours. ``tolerance`` is the widest interval of bounded
    AutoAttack, in percentage points; None for other suites. ``search`` are the settings of ``dkl.threat.SEARCH`` that
    differ from their defaults.
    """

    attacks: list[str]
    norm: EvaluatedNorm
    eps: float
    eps_text: str
    n: int | None
    batch_size: int
    seed: int
    package: bool = False
    tolerance: float | None = None
    search: Mapping[str, bool | str] = field(default_factory=dict)

    @property
    def standard(self) -> Self:
        """The standard suite, which a bounded evaluation becomes if it must."""
        return replace(self, attacks=list(AUTOATTACK), tolerance=None)

    @abstractmethod
    def whole(self) -> Self:
        """What becomes of it for a network that is not a function of one image: AutoAttack's batches stay whole."""

    @abstractmethod
    def make(self, name: str, model: nn.Module, num_classes: int, device: torch.device) -> Perturb:
        """The attack ``name`` on ``model``."""

    def check(self, shape: Sequence[int], num_classes: int) -> None:
        """Raise UserError if the attacks cannot run on images of ``shape[C, H, W]`` and so many classes."""
        parse_threat(self.norm, self.eps_text, shape=shape, norms=EVALUATED_NORMS)
        for name in self.attacks:
            attack = known_attack(name).attack
            if num_classes < attack.fewest_classes:
                others = ",".join(other for other in AUTOATTACK if num_classes >= ATTACKS[other].fewest_classes)
                raise UserError(
                    f"{name} compares {_NUMBERS[attack.fewest_classes]} logits, so it needs at least "
                    f"{attack.fewest_classes} classes, this model has {num_classes}; "
                    + (f"use attacks=[{others}]" if others else "give it one logit per class")
                )
            side = attack.smallest_side
            if self.norm != "linf" and min(shape[1:]) < side:
                raise UserError(
                    f"{known_attack(name).base} for {NORM_TITLES[self.norm]} needs images of at least {side} x {side} "
                    f"pixels, not {shape[1]} x {shape[2]}: use attacks=[apgd-ce,fab-t]"
                )


Plan = TypeVar("Plan", bound=AttackPlan)


class AttackedBatch(NamedTuple):
    """What ``attack`` made of batch ``number`` of ``batches``: ``chosen[B]`` images of all, and their logits."""

    attack: str
    number: int
    batches: int
    chosen: Tensor
    adversarial: Tensor
    logits: Tensor


@dataclass(frozen=True, kw_only=True)
class AttackTask(Generic[Plan]):
    """A network, ``images[N, C, H, W]`` (uint8 or in [0, 1]), ``labels[N]`` on the CPU, and how they are attacked.

    The progress is saved in ``folder``; None saves nothing. ``together`` is the number of images of several batches
    that are attacked at once; None finds it. ``observe`` gets every batch that is done, before it is saved.
    """

    model: nn.Module
    images: Tensor
    labels: Tensor
    num_classes: int
    protocol: Plan
    device: torch.device
    folder: Path | None = None
    quiet: bool = False
    together: int | None = None
    observe: Callable[[AttackedBatch], None] | None = None

    @classmethod
    def of(
        cls,
        model: Callable[[Tensor], Tensor],
        images: Tensor,
        labels: Tensor,
        protocol: Plan,
        device: torch.device | None = None,
        **options: Any,
    ) -> Self:
        """The task with anyone's ``model`` and tensors, on the device of the model's parameters if none is given.

        Raises UserError if the model, the images, the labels or the attacks are not usable.
        """
        images, labels = checked_images(images, labels)
        module = as_module(model)
        device = device or device_of(module, images)
        what = f"the model cannot classify an image {list(images.shape[1:])} on {device}"
        with frozen_eval(module), blamed(what):
            logits = first_output(module, scaled(images[:1].to(device)))
        if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != 1:
            found = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UserError(f"the model must return logits [B, classes], but for one image it returns {found}")
        classes, low, high = logits.shape[1], int(labels.min()), int(labels.max())
        if not 0 <= low <= high < classes:
            raise UserError(f"labels must be from 0 to {classes - 1}, the model's classes, not {low} to {high}")
        protocol.check(images.shape[1:], classes)
        return cls(
            model=module,
            images=images,
            labels=labels,
            num_classes=classes,
            protocol=protocol,
            device=device,
            **options,
        )

    @cached_property
    def classifier(self) -> nn.Module:
        """The network as it is called."""
        return Classifier(self.model)

    @cached_property
    def searched(self) -> nn.Module:
        """The network on which the attacks search."""
        if not self.protocol.search:
            return self.classifier
        return Classifier(search_model(self.model, self.protocol.search, self.protocol.batch_size))

    def saved_in(self, folder: Path, identity: list[Any]) -> Self:
        """The same with its progress in a subfolder of ``folder``, named after the network and the ``identity``.

        Networks that share weights and code have a subfolder each if their logits differ. Raises UserError if the
        folder cannot hold files.
        """
        check_writable(folder)
        state = self.model.state_dict()
        known = [weights_sha256(state), *_code_of(self.model)] if state else [""]
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices), frozen_eval(self.model), torch.no_grad():
            torch.manual_seed(0)  # a randomized network continues too
            logits = self.classifier(scaled(self.images[:_KNOWN_BY]).to(self.device)).cpu().numpy()
        for number in count():
            own = folder / digest([*known, *identity, *[number] * bool(number)])
            path = own / "logits.npy"
            if not path.exists():
                write_atomically(path, lambda file: np.save(file, logits))
                break
            before = np.load(path)
            rounding = {"rtol": 0.01, "atol": 0.01 * np.abs(before).max()}  # of another device
            if before.shape == logits.shape and np.allclose(before, logits, equal_nan=True, **rounding):
                break
        return replace(self, folder=own)


def _code_of(model: nn.Module) -> list[str]:
    """What weights and logits leave open: the class, code and switches of each of the modules of ``model``.

    A defense may keep the logits and change their gradients. Other attributes may count calls or cache images.
    """
    parts = []
    for name, module in model.named_modules():
        kind = type(module)
        parts.append(f"{name}: {kind.__module__}.{kind.__qualname__}({module.extra_repr()})")
        if kind.__module__.startswith("torch."):
            continue
        for each in kind.__mro__:
            with suppress(OSError, TypeError):  # written in C++, or typed into a console
                parts.append("" if each.__module__.startswith("torch.") else inspect.getsource(each))
        for key, value in sorted(vars(module).items()):
            if key not in _MODULE_KEYS and isinstance(value, bool | float | str):
                parts.append(f"{key}={value!r}")
    return parts

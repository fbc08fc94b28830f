"""Attacks of your own: functions of a network, images and labels, checked when they are chosen and on what they return.

They are code, so they are imported only if the user's own command, call or configuration names them.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dkl.attacks.autoattack.classifier import blamed
from dkl.attacks.contexts import frozen_eval
from dkl.attacks.pgd import Perturb
from dkl.errors import UserError
from dkl.storage.files import file_hash
from dkl.threat import EvaluatedNorm, Norm, parse_threat


def name_of(function: Callable[..., Any]) -> str:
    """Return the name of ``function`` as ``package.module:function``."""
    kind = function if hasattr(function, "__qualname__") else type(function)
    return re.sub(r"[^\w.:]", "", f"{kind.__module__}:{kind.__qualname__}")  # such as <lambda>


@dataclass(frozen=True)
class OwnAttack:
    """``function(model, images, labels, *, norm, eps, seed, **arguments)`` returns images; ``sha256`` is its file's.

    Raises UserError if it cannot be called so.
    """

    name: str
    function: Callable[..., Tensor]
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            signature = inspect.signature(self.function)
            signature.bind(None, None, None, norm="linf", eps=0.0, seed=0, **self.arguments)
        except TypeError as error:
            wanted = ", ".join(["model, images, labels, *, norm, eps, seed", *self.arguments])
            raise UserError(f"attack {self.name} must take ({wanted}): {error}") from None
        except ValueError:  # builtins have no signature
            pass

    @classmethod
    def of(cls, function: Callable[..., Tensor]) -> "OwnAttack":
        """Make the attack of ``function``, named after its module."""
        return cls(name_of(function), function)

    @cached_property
    def sha256(self) -> str:
        """The hash of the file of the function; empty if it has none."""
        with suppress(TypeError, OSError):
            return file_hash(Path(inspect.getfile(inspect.unwrap(self.function))))
        return ""

    def on(self, model: nn.Module, *, norm: EvaluatedNorm, eps: float, seed: int) -> Perturb:
        """Return the attack on ``model``, which starts every batch from ``seed``, also in torch's own generators."""

        def perturb(x: Tensor, y: Tensor) -> Tensor:
            devices = [x.device] if x.device.type == "cuda" else []
            with torch.random.fork_rng(devices), torch.enable_grad(), blamed(f"attack {self.name} fails"):
                torch.manual_seed(seed)
                found = self.function(model, x.clone(), y.clone(), norm=norm, eps=eps, seed=seed, **self.arguments)
            if not isinstance(found, Tensor) or found.shape != x.shape:
                given = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise UserError(f"attack {self.name} must return images {list(x.shape)}, not {given}")
            return found.detach().to(x)

        return perturb


class OwnTrainingAttack:
    """The attack of training that a partial ``function`` of ``norm``, ``eps`` and its own arguments describes.

    Raises UserError if ``norm`` or ``eps`` is missing or out of range, or if the function cannot be called.
    """

    objective = None
    batch_norm: Literal["running"] = "running"

    def __init__(self, function: partial[Tensor]) -> None:
        arguments = dict(function.keywords)
        for key in ("norm", "eps"):
            if key not in arguments:
                raise UserError(f"attack.{key} is missing: an attack of your own needs attack.norm and attack.eps")
        self.norm: Norm = arguments.pop("norm")
        self.eps = parse_threat(self.norm, arguments.pop("eps"), "attack.")
        self.own = OwnAttack(name_of(function.func), function.func, arguments)

    def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> Tensor:
        """Images ``[B, ...]`` within the ball of ``images`` and in [0, 1]; else raises UserError."""
        with frozen_eval(model):
            found = self.own.on(model, norm=self.norm, eps=self.eps, seed=seed)(images, labels)
        check_inside(self.own.name, found, images, self.norm, self.eps)
        return found


_SLACK = 1e-4
"""How far beyond the radius an image may lie, relative to it: sums of many pixels round."""

_ORDERS: dict[EvaluatedNorm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}


def distances(found: Tensor, x: Tensor, norm: EvaluatedNorm) -> Tensor:
    """The distance of each image ``found[B, ...]`` from ``x[B, ...]``, ``[B]``, summed in float64."""
    return torch.linalg.vector_norm((found.double() - x.double()).flatten(1), ord=_ORDERS[norm], dim=1)


def check_inside(name: str, found: Tensor, x: Tensor, norm: EvaluatedNorm, eps: float) -> None:
    """Raise UserError if what attack ``name`` ``found[B, ...]`` is not in [0, 1] or not within ``eps`` of ``x``."""
    low, high = float(found.min()), float(found.max())
    if math.isnan(low):
        raise UserError(f"attack {name} returns NaN: make the gradients of the network finite, or those of the attack")
    if not 0 <= low <= high <= 1:
        raise UserError(f"attack {name} returns images in [{low:.6g}, {high:.6g}], not in [0, 1]: clamp them")
    distance = float(distances(found, x, norm).max())
    if distance > eps * (1 + _SLACK) + 1e-6:
        raise UserError(
            f"attack {name} moves an image by {distance:.6g} in {norm}, more than eps={eps:.6g}: project its images "
            "into the ball"
        )

"""Attacks of your own, ``package.module:function``, whose images are checked to lie in the ball and in the box.

They are code, so they are imported only if the user's own command or call names them, never because a record does.
"""

import inspect
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from dkl.attacks import Perturb
from dkl.errors import UserError
from dkl.evaluation.robustness.classifier import blamed
from dkl.models.sources.imported import import_object
from dkl.storage.files import file_hash
from dkl.threat import EvaluatedNorm, is_own

_SLACK = 1e-4
"""How far beyond the radius an image may lie, relative to it: sums of many pixels round."""

_ORDERS: dict[EvaluatedNorm, float] = {"linf": torch.inf, "l2": 2, "l1": 1}


@dataclass(frozen=True)
class OwnAttack:
    """``function(model, images, labels, *, norm, eps, seed)`` returns adversarial images; ``sha256`` is its file's.

    Raises UserError if it cannot be called so.
    """

    name: str
    function: Callable[..., Tensor]

    def __post_init__(self) -> None:
        try:
            inspect.signature(self.function).bind(None, None, None, norm="linf", eps=0.0, seed=0)
        except TypeError as error:
            raise UserError(
                f"attack {self.name} must take (model, images, labels, *, norm, eps, seed): {error}"
            ) from None
        except ValueError:  # builtins have no signature
            pass

    @classmethod
    def of(cls, function: Callable[..., Tensor]) -> "OwnAttack":
        """Name ``function`` by where it is from."""
        kind = function if hasattr(function, "__qualname__") else type(function)
        return cls(re.sub(r"[^\w.:]", "", f"{kind.__module__}:{kind.__qualname__}"), function)  # such as <lambda>

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
                found = self.function(model, x.clone(), y.clone(), norm=norm, eps=eps, seed=seed)
            if not isinstance(found, Tensor) or found.shape != x.shape:
                given = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
                raise UserError(f"attack {self.name} must return images {list(x.shape)}, not {given}")
            found = found.detach().to(x)
            self._check(found, x, norm, eps)
            return found

        return perturb

    def _check(self, found: Tensor, x: Tensor, norm: EvaluatedNorm, eps: float) -> None:
        """Raise UserError if ``found[B, ...]`` is not in [0, 1] or not within ``eps`` of ``x[B, ...]``."""
        low, high = float(found.min()), float(found.max())
        if not 0 <= low <= high <= 1:  # false for NaN too
            raise UserError(f"attack {self.name} returns images in [{low:.6g}, {high:.6g}], not in [0, 1]: clamp them")
        distance = float(torch.linalg.vector_norm((found - x).flatten(1), ord=_ORDERS[norm], dim=1).max())
        if distance > eps * (1 + _SLACK) + 1e-6:
            raise UserError(
                f"attack {self.name} moves an image by {distance:.6g} in {norm}, more than eps={eps:.6g}: project its "
                "images into the ball"
            )


def import_own(names: Iterable[str]) -> dict[str, OwnAttack]:
    """Import those of the attacks ``names`` that are the user's own. Raises UserError if one cannot be imported."""
    what = "a function (model, images, labels, *, norm, eps, seed) that returns images"
    return {name: OwnAttack(name, import_object(name, "attacks", what)) for name in names if is_own(name)}

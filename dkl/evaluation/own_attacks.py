"""Attacks of your own, ``package.module:function``.

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
from dkl.attacks.autoattack.classifier import blamed
from dkl.errors import UserError
from dkl.models.sources.imported import import_object
from dkl.storage.files import file_hash
from dkl.threat import EvaluatedNorm, is_own


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
            return found.detach().to(x)

        return perturb


def import_own(names: Iterable[str]) -> dict[str, OwnAttack]:
    """Import those of the attacks ``names`` that are the user's own. Raises UserError if one cannot be imported."""
    what = "a function (model, images, labels, *, norm, eps, seed) that returns images"
    return {name: OwnAttack(name, import_object(name, "attacks", what)) for name in names if is_own(name)}

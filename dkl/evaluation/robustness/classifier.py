"""A network as evaluations call it: float32 logits, and whatever it raises as an error of one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_pre_hook

from dkl.errors import UserError, first_line, shortened
from dkl.runtime.interruption import Interrupted


@contextmanager
def blamed(what: str, advice: str = "") -> Iterator[None]:
    """Raise UserError for any exception inside, which the model raises: ``what`` failed, its type and first line."""
    try:
        yield
    except (UserError, Interrupted):
        raise
    except (Exception, SystemExit) as error:
        reason = ": ".join(filter(None, (type(error).__name__, shortened(first_line(error), 200))))
        raise UserError(f"{what}: {reason}{advice}") from error


class Classifier(nn.Module):
    """``network`` with logits in float32, in which attacks search; those of another precision are cast.

    The package's attacks fail on half precision, and on double precision for L2. Images are float32, so of double
    precision nothing is lost but differences of logits that float32 rounds away.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        try:
            logits: Tensor = self.network(x)
            return logits.float()
        except (Exception, SystemExit):
            with blamed(f"the model cannot classify images {list(x.shape)} on {x.device}"):
                raise


@torch.no_grad()
def first_output(model: nn.Module, images: Tensor, name: str = "the model") -> object:
    """What ``model`` returns for the first ``images`` that it gets.

    Raises UserError if it changes them in place, or calls a network in training mode that is not one of its modules and
    has statistics: every call would move them.
    """
    modules, given = set(model.modules()), images.clone()

    def refuse_training(module: nn.Module, inputs: object) -> None:
        if module.training and module not in modules and any(True for _ in module.buffers()):
            network = type(module).__name__
            raise UserError(
                f"{name} calls a network in training mode, {network}: call the eval() of that network first"
            )

    hook = register_module_forward_pre_hook(refuse_training)
    try:
        with torch.compiler.set_stance("force_eager"):  # compiled code would keep the hook
            output = model(given)
    finally:
        hook.remove()
    if not torch.equal(given, images):
        raise UserError(f"{name} changes its images in place: write x = x - mean, not x -= mean")
    return output

"""Warnings about networks whose robustness AutoAttack overestimates, in plain words.

The checks and their thresholds are the package's, and one of ours: logits that are equal for all images.
"""

import sys
import warnings
from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from pyautoattack import checks
from torch import Tensor, nn

from dkl.errors import UserError

_NOT_FINITE = "are not finite"


def _warned(check: Callable[[], object]) -> bool:
    """Whether ``check``, one of the package's, warns: it returns nothing."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check()
    return bool(caught)


def _is_dynamic(model: nn.Module, x: Tensor) -> bool:
    """Whether ``model`` differentiates something during its forward pass."""
    # The package counts calls by a trace function, and leaves its counts and no trace function behind.
    before = sys.gettrace()
    for name in checks.funcs:
        checks.funcs[name] = 0
    try:
        return _warned(lambda: checks.check_dynamic(model, x))
    finally:
        sys.settrace(before)


def model_warnings(
    model: nn.Module, x: Tensor, y: Tensor, *, randomized: bool = False, by_gradient: str = ""
) -> list[str]:
    """Check ``model`` on one batch ``x[B, ...]``, ``y[B]`` and return one warning per problem.

    ``randomized`` says that the attacks are meant for randomized networks, and ``by_gradient`` names the first that
    needs gradients. Raises UserError if it cannot have them.
    """
    found = []
    varies = _warned(lambda: checks.check_randomized(model, x, y, bs=len(x)))
    if randomized and not varies:
        found.append(
            "attacks=rand is for randomized networks, and this one is not random: attacks=standard is stronger"
        )
    if varies and randomized:
        found.append("the network is randomized: its accuracies vary if they are measured again")
    elif varies:
        found.append(
            "the network is randomized or not deterministic: the same images get other logits each time. Attacks meant "
            "for fixed networks overestimate it: also evaluate attacks=rand"
        )
    if _warned(lambda: checks.check_range_output(model, x)):
        found.append(
            "the outputs look like a probability distribution: behind a softmax, gradients vanish and robust accuracy "
            "comes out too high; remove the softmax, so that the network returns logits"
        )
    if _is_dynamic(model, x):
        found.append(
            "the network differentiates during its forward pass, as defenses that adapt at test time do: AutoAttack "
            "may overestimate it; attack it adaptively too"
        )
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        loss = F.cross_entropy(logits, y, reduction="sum")
        if by_gradient and not loss.requires_grad:
            raise UserError(
                f"{by_gradient} follows gradients, and the model's logits have none: remove no_grad() or detach() from "
                "it, or use attacks=[square]"
            )
        gradient = torch.autograd.grad(loss, leaf)[0] if loss.requires_grad else torch.zeros_like(x)
    zero = int((gradient.flatten(1).abs().sum(1) == 0).sum())
    if zero:
        found.append(
            f"{zero} of the first {len(x)} images have a zero gradient: attacks that follow the gradient cannot move "
            "them, so robust accuracy may be too high"
        )
    if len(x) > 1 and (logits == logits[:1]).all():
        found.append("the logits are equal for all images: the network ignores its input")
    return found


def square_warnings(accuracies: dict[str, float]) -> list[str]:
    """Return a warning if Square, a black-box attack, lowers the accuracy below the gradient attacks'.

    ``accuracies`` maps each attack to the accuracy after it.
    """
    if not _warned(lambda: checks.check_square_sr(accuracies)):
        return []
    lost = min(value for name, value in accuracies.items() if name != "square") - accuracies["square"]
    return [
        f"square, which needs no gradients, lowered the accuracy by a further {100 * lost:.2f} points: the network "
        "probably masks its gradients, so its robust accuracy may be too high; attack it adaptively"
    ]


def nonfinite_warnings(counts: dict[str, int]) -> list[str]:
    """Return one warning per attack under which logits were not finite. ``counts`` maps attacks to images."""
    return [
        f"{name}: the logits of {count} attacked images {_NOT_FINITE}; these images count as misclassified"
        for name, count in counts.items()
        if count
    ]


def nonfinite_only(warnings: Iterable[str]) -> list[str]:
    """Return those of ``warnings`` that ``nonfinite_warnings`` made."""
    return [warning for warning in warnings if f"attacked images {_NOT_FINITE}" in warning]

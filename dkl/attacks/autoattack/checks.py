"""Warnings about networks whose robustness AutoAttack overestimates, in plain words.

The checks and their thresholds are the package's, and ours: logits that are equal for all images, and networks whose
answer to an image depends on other images, on its place, or on earlier calls.
"""

import sys
from collections.abc import Mapping
from types import FrameType
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.attacks.autoattack.classifier import blamed
from dkl.attacks.named import margin
from dkl.errors import UserError

NOT_FINITE = "attacked images are not finite"

_REPEATS = 25
"""Passes of two images, which cost little and find a network that is random in every tenth pass."""

_ROUNDING = 1e-4
"""The package's bound of distances between logits of one image, as vectors of length 1, in passes of equal shape."""

_STEP = 0.01
"""Length of the step, in L2, along which a gradient is compared with the change of the logits."""

_NEARLY = 1e-5
"""How far probabilities may be from [0, 1], and their sum from 1."""

_WHOLE_REPEATS = 4
"""Further passes of the whole batch."""

_SQUARE_GAIN = 0.002
"""What Square may find that attacks by gradients did not, as a fraction of the images."""

_ROUNDING_OF_SIZES = 0.02
"""The same for batches of other sizes, for which TF32 and bfloat16 round in another way."""


class ModelChecks(NamedTuple):
    """Warnings about a network, and whether AutoAttack's batches are kept whole: it is no function of one image."""

    warnings: list[str]
    whole_batches: bool = False


def _is_dynamic(model: nn.Module, x: Tensor) -> bool:
    """Whether ``model`` calls a function that differentiates during its forward pass."""
    before, calls = sys.gettrace(), 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event == "call" and frame.f_code.co_name in ("grad", "backward", "_make_grads")

    sys.settrace(count)
    try:
        model(x)
    finally:
        sys.settrace(before)
    return calls > 0


def _distance(logits: Tensor, others: Tensor) -> float:
    """The largest distance of rows ``[B, C]`` that are divided by their norms."""
    return float((F.normalize(logits) - F.normalize(others)).norm(dim=1).max())


def _varies(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether the same images ``x[B, ...]`` get other logits in another pass."""
    few, first = x[:2], model(x[:2])
    if any(_distance(model(few), first) > _ROUNDING for _ in range(_REPEATS)):
        return True
    logits = model(x)
    right = (logits.argmax(1) == y).sum()
    for _ in range(_WHOLE_REPEATS):
        again = model(x)
        if _distance(again, logits) > _ROUNDING or (again.argmax(1) == y).sum() != right:
            return True
    return False


def _slope_is_wrong(model: nn.Module, x: Tensor, y: Tensor) -> bool:
    """Whether the gradient of most images ``x[B, ...]`` is not how the logits change along it.

    Compares the change of a logit gap over a short step in both directions with the gradient's, per image.
    """
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        gap = margin(model(leaf), y)
        gradient = torch.autograd.grad(gap.sum(), leaf)[0]
    size = gradient.flatten(1).norm(dim=1)
    direction = gradient / size.clamp_min(torch.finfo(x.dtype).tiny).view(-1, *[1] * (x.ndim - 1))
    ends = [model(x + sign * _STEP * direction) for sign in (1, -1)]
    # Of the same pair of classes on both sides, as in the gradient.
    other = model(x).scatter(1, y.unsqueeze(1), -torch.inf).argmax(1, keepdim=True)
    high, low = ((end.gather(1, other) - end.gather(1, y.unsqueeze(1))).squeeze(1) for end in ends)
    expected, rounding = 2 * _STEP * size, 1e-5 * ends[0].abs().amax(1)
    wrong = (high - low - expected).abs() > 0.5 * expected + rounding
    asked = (size > 0) & gap.detach().isfinite()
    return bool(asked.any() and wrong[asked].double().mean() > 0.5)


@torch.no_grad()
def check_model(
    model: nn.Module, x: Tensor, y: Tensor, *, randomized: bool = False, by_gradient: str = ""
) -> ModelChecks:
    """Check ``model`` on one batch ``x[B, ...]``, ``y[B]``, with one warning per problem.

    ``randomized`` says that the attacks are meant for randomized networks, and ``by_gradient`` names the first that
    needs gradients. Raises UserError if it cannot have them.
    """
    found = []
    varies, logits, half = _varies(model, x, y), model(x), (len(x) + 1) // 2
    # Images may get other logits among other images, or at other places of a smaller batch.
    depends = not varies and (
        _distance(model(torch.cat([x[:half], x[:half]])[: len(x)])[:half], logits[:half]) > _ROUNDING
        or _distance(model(x[-half:]), logits[-half:]) > _ROUNDING_OF_SIZES
    )
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
    if depends:
        found.append(
            "the network's answer to an image depends on the other images of its batch or on its place there, as with "
            "BatchNorm without running statistics: the accuracies hold for these batches only, in which the authors' "
            "code attacks it"
        )
    logits = model(x)
    if -_NEARLY < logits.min() <= logits.max() < 1 + _NEARLY and ((logits.sum(-1) - 1).abs() < _NEARLY).all():
        found.append(
            "the outputs look like a probability distribution: behind a softmax, gradients vanish and robust accuracy "
            "comes out too high; remove the softmax, so that the network returns logits"
        )
    if _is_dynamic(model, x):
        found.append(
            "the network differentiates during its forward pass, as defenses that adapt at test time do: AutoAttack "
            "may overestimate it; attack it adaptively too"
        )
    found += _gradient_warnings(model, x, y, by_gradient, varies=varies)
    return ModelChecks(found, whole_batches=varies or depends)


def _gradient_warnings(model: nn.Module, x: Tensor, y: Tensor, by_gradient: str, *, varies: bool) -> list[str]:
    """What attacks that follow the gradient should know; ``varies`` says that the network is randomized."""
    found = []
    with torch.enable_grad():
        leaf = x.clone().requires_grad_()
        logits = model(leaf)
        loss = F.cross_entropy(logits, y, reduction="sum")
        if by_gradient and not loss.requires_grad:
            raise UserError(
                f"{by_gradient} follows gradients, and the model's logits have none: remove no_grad() or detach() from "
                "it, or use attacks=[square]"
            )
        with blamed("the model's gradient cannot be computed"):
            gradient = torch.autograd.grad(loss, leaf)[0] if loss.requires_grad else torch.zeros_like(x)
    # The logits of a randomized network differ anyway.
    if not varies and _distance(logits.detach(), model(x)) > _ROUNDING:
        found.append(
            "the network answers in another way if a gradient is asked for: attacks by gradients search on another "
            "network than the one that is evaluated, so robust accuracy may be too high"
        )
    elif not varies and loss.requires_grad and _slope_is_wrong(model, x, y):
        found.append(
            "the gradient is not the slope of the logits, as with rounding or a gradient of its own in the network: "
            "attacks that follow it may fail, so robust accuracy may be too high"
        )
    infinite = int((~gradient.flatten(1).isfinite().all(1)).sum())
    if infinite:
        found.append(
            f"{infinite} of the first {len(x)} images have a gradient that is not finite: attacks that follow it "
            "cannot move them, so robust accuracy may be too high"
        )
    zero = int((gradient.flatten(1).abs().sum(1) == 0).sum())
    if zero:
        found.append(
            f"{zero} of the first {len(x)} images have a zero gradient: attacks that follow the gradient cannot move "
            "them, so robust accuracy may be too high"
        )
    if len(x) > 1 and (logits == logits[:1]).all():
        found.append("the logits are equal for all images: the network ignores its input")
    return found


def final_warnings(
    accuracies: Mapping[str, float], nonfinite: Mapping[str, int], changed: int, images: int
) -> list[str]:
    """Return what the results of the attacks warn of.

    ``accuracies`` maps each attack to the accuracy after it, ``nonfinite`` to the images with such logits, and
    ``changed`` of all ``images`` are classified in another way than before the attacks.
    """
    found = []
    # Square is a black-box attack: it should not find more than the attacks by gradients.
    others = [value for name, value in accuracies.items() if name != "square"]
    lost = min(others) - accuracies["square"] if "square" in accuracies and len(others) > 1 else 0.0
    if lost > _SQUARE_GAIN:
        found.append(
            f"square, which needs no gradients, lowered the accuracy by a further {100 * lost:.2f} points: the network "
            "probably masks its gradients, so its robust accuracy may be too high; attack it adaptively"
        )
    found += nonfinite_warnings(nonfinite)
    if changed:
        found.append(
            f"{changed} of {images} clean images are classified in another way after the attacks than before: the "
            "network is randomized, or calls change it"
        )
    return found


def nonfinite_warnings(counts: Mapping[str, int]) -> list[str]:
    """Return one warning per attack under which logits were not finite. ``counts`` maps attacks to images."""
    return [
        f"{name}: the logits of {count} {NOT_FINITE}; these images count as misclassified"
        for name, count in counts.items()
        if count
    ]

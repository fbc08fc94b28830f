"""Calls of the library with wrong arguments raise one line that names the argument, its value and what is allowed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dkl import losses
from dkl.attacks import AttackStrength, TrainingAttack, named_attack, pgd
from dkl.attacks.autoattack import square
from dkl.errors import UserError
from dkl.evaluation import autoattack
from dkl.losses import GKLLoss, IKLLoss, gap_mse
from dkl.models import create_model
from dkl.models.teacher import create_teacher
from dkl.sharing import load_model
from dkl.threat import parse_attacks, parse_eps, parse_threat

X = torch.zeros(2, 3, 4, 4)
Y = torch.zeros(2, dtype=torch.int64)
LOGITS = torch.zeros(2, 5)


def attacked(x: Tensor = X, *, norm: str = "linf", eps: float = 0.1, step_size: float = 0.1, steps: int = 1) -> Tensor:
    """Call ``pgd`` with a network that returns the mean of each channel."""
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return pgd(model, x, torch.sum, norm=norm, eps=eps, step_size=step_size, steps=steps)  # type: ignore[arg-type]  # wrong


def strength(**settings: object) -> AttackStrength:
    """A training attack's strength in its first epoch of ten."""
    return TrainingAttack(**{"eps": 0.1, **settings}).at(1, 10)  # type: ignore[arg-type]  # wrong


def criterion(natural: Tensor = LOGITS, adversarial: Tensor = LOGITS, target: Tensor = Y) -> Tensor:
    """Call ``IKLLoss`` of five classes."""
    loss: Tensor = IKLLoss(num_classes=5)(natural, adversarial, target)
    return loss


ROWS: list[tuple[Callable[[], object], type[Exception], str]] = [
    (lambda: losses.IKL(detach_weights=1), ValueError, "detach_weights=1 | true or false"),
    (lambda: losses.IKL(alpha=5), TypeError, "'alpha'"),
    (lambda: losses.ClassPrior(5)[Y - 1], IndexError, "out of range"),
    (lambda: gap_mse(LOGITS, LOGITS, LOGITS[:1]), ValueError, "one row per sample"),
    (lambda: gap_mse(LOGITS, LOGITS, LOGITS, reduction="batchmean"), ValueError, "'batchmean' | mean, sum or none"),
    (lambda: IKLLoss(num_classes=5, reduction="avg"), ValueError, "reduction='avg' | mean, sum or none"),
    (lambda: IKLLoss(num_classes=0), ValueError, "num_classes=0"),
    (lambda: IKLLoss(num_classes=5, prior_temperature=0), ValueError, "prior_temperature=0"),
    (lambda: IKLLoss(num_classes=5, wmse_weight=-1), ValueError, "wmse_weight=-1"),
    (lambda: GKLLoss(num_classes=5, gamma=-1), ValueError, "gamma=-1"),
    (lambda: criterion(LOGITS[0], LOGITS[0]), ValueError, "IKLLoss | [B, C]"),
    (lambda: criterion(LOGITS[:, :4], LOGITS[:, :4]), ValueError, "4 classes | num_classes=5"),
    (lambda: criterion(target=Y[:1]), ValueError, "int64 labels (2,)"),
    (lambda: criterion(target=Y.float()), ValueError, "torch.float32 | int64"),
    (lambda: criterion(target=LOGITS), ValueError, "target.argmax(1)"),
    (lambda: criterion(target=Y + 5), ValueError, "from 5 to 5 | 0 to 4"),
    (lambda: criterion(target=Y - 1), ValueError, "from -1 to -1 | ignore_index=-1"),
    (lambda: criterion(target=Y.to("meta")), ValueError, "cpu, meta | criterion.to("),
    (lambda: attacked(norm="l3"), ValueError, "norm='l3' | linf, l2"),
    (lambda: attacked(eps=8), ValueError, "eps=8 | 8 / 255"),
    (lambda: attacked(norm="l2", eps=-1), ValueError, "eps=-1 | negative"),
    (lambda: attacked(steps=-1), ValueError, "steps=-1 | negative"),
    (lambda: attacked(step_size=-0.1), ValueError, "step_size=-0.1 | negative"),
    (lambda: attacked(X.to(torch.uint8)), ValueError, "torch.uint8 | divide"),
    (lambda: attacked(eps=float("nan")), ValueError, "eps=nan"),
    (lambda: autoattack(None, X, Y, eps=0.1), UserError, "model must be a module or a function | not None"),  # type: ignore[arg-type]  # wrong
    (lambda: autoattack(nn.Flatten(), X, Y, eps=None), UserError, "eps='None'"),  # type: ignore[arg-type]  # wrong
    (lambda: autoattack(nn.Flatten(), X, Y, eps=0.1, norm="l0"), UserError, "one of linf, l2, l1"),
    (lambda: autoattack(nn.Flatten(), X, Y, eps=0.1, folder=__file__), UserError, "is a file"),
    (lambda: load_model("timm:small_cnn", device="gpu"), UserError, "device=gpu is not a device"),
    (lambda: strength(schedule="nope"), UserError, "'nope' | official | fixed"),
    (lambda: strength(schedule="fixed"), UserError, "attack.steps | attack.relative_step"),
    (lambda: strength(schedule="fixed", steps=-1, relative_step=0.25), UserError, "whole number from 0"),
    (lambda: strength(schedule="official", steps=3), UserError, "attack.schedule=fixed"),
    (lambda: strength(batch_norm="eval"), UserError, "'eval' | running, batch"),
    (lambda: TrainingAttack(eps=0.1).at(0, 10), ValueError, "epoch=0 | 1 to 10"),
    (lambda: TrainingAttack(eps=0.1).at(11, 10), ValueError, "epoch=11 | 1 to 10"),
    (lambda: named_attack(nn.Identity(), "fgsm", norm="linf", eps=0.1, seed=0), ValueError, "'fgsm' | pgd-20"),
    (lambda: parse_attacks([]), UserError, "attacks=[]"),
    (lambda: parse_attacks(["pgd-20", "pgd-20"]), UserError, "without repeats"),
    (lambda: parse_attacks("autoatack"), UserError, "autoatack | standard"),
    (lambda: parse_eps("8/0"), UserError, "'8/0'"),
    (lambda: parse_eps(float("inf")), UserError, "finite"),
    (lambda: parse_threat("l1", 0.1), UserError, "'l1' | linf, l2"),
    (lambda: parse_threat("l2", -1), UserError, "eps=-1 is negative"),
    (lambda: create_model("wrn99_99", num_classes=10), UserError, "'wrn99_99' | timm.list_models()"),
    (lambda: create_model("resnet18.nope", num_classes=10), UserError, "did you mean resnet18"),
    (lambda: create_model("small_cnn", num_classes=10, mean=[0.5]), UserError, "model.std"),
    (lambda: create_teacher("small_cnn", 10, checkpoint="a.pt", run="b"), UserError, "one place"),
    (lambda: create_teacher("small_cnn", 10, checkpoint="missing.pt"), UserError, "missing.pt"),
    (lambda: create_teacher("small_cnn", 10, run="missing"), UserError, "task.teacher.run=missing"),
    (lambda: create_teacher("nope", 10, pretrained=True), UserError, "'nope'"),
    (lambda: create_teacher("resnet18.a1_in1k", 10, pretrained=True), UserError, "num_classes=10 | has 1000"),
    (
        lambda: square(nn.Identity(), X, Y, norm="l2", eps=0.5, seed=0, places=Y, lengths=Y),
        ValueError,
        "places and length",
    ),
]
"""A call, what it raises, and words of the message, separated by `` | ``."""


@pytest.mark.parametrize(("run", "kind", "words"), ROWS, ids=[words for _, _, words in ROWS])
def test_a_call_raises_one_line(run: Callable[[], object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind) as refused:
        run()
    message = str(refused.value)
    assert "\n" not in message
    for part in words.split(" | "):
        assert part in message

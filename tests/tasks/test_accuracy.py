"""Top-1 and top-5 accuracy equal scikit-learn's."""

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score

from dkl.tasks.base import top1, top5


@pytest.mark.parametrize("classes", [6, 100])
def test_top_k_is_scikit_learns(classes: int) -> None:
    logits, labels = torch.randn(200, classes), torch.randint(classes, (200,))
    for k, correct in ((1, top1), (5, top5)):
        expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(classes))
        assert correct(logits, labels).double().mean().item() == pytest.approx(expected, abs=1e-12)


def test_equal_logits_are_not_five_correct_guesses() -> None:
    logits, labels = torch.zeros(100, 20), torch.arange(100) % 20
    assert bool((top1(logits, labels) <= top5(logits, labels)).all())
    assert top5(logits, labels).double().mean() < 0.35

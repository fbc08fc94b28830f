"""Classification is smoothed cross-entropy as the formula has it; accuracy is what a loop over images counts."""

import math

import pytest
import torch
from sklearn.metrics import top_k_accuracy_score
from torch import Tensor, nn

from dkl.attacks import top1, top5
from dkl.data import Batches, Batching, Images
from dkl.tasks import Classification, Progress
from dkl.tasks.base import correct
from tests.tasks.common import CLASSES, Spy, make_batch, make_net


def smoothed(logits: Tensor, label: int, smoothing: float) -> float:
    """−Σ q log p, where q mixes the label with the uniform distribution."""
    values = logits.tolist()
    log_sum = math.log(sum(map(math.exp, values)))
    share = smoothing / len(values)
    target = [share + (1 - smoothing) * (column == label) for column in range(len(values))]
    return -sum(q * (value - log_sum) for q, value in zip(target, values, strict=True))


def test_the_loss_is_smoothed_cross_entropy() -> None:
    for smoothing in [0.0, 0.1, 0.5]:
        model, batch = make_net().train(), make_batch(13)
        spy = Spy(model)
        with Classification(model, num_classes=CLASSES, label_smoothing=smoothing).step(batch, Progress(1, 1)) as out:
            out.loss.backward()
        (call,) = spy.calls
        assert call.training
        assert torch.equal(call.images, batch.images)
        losses = [
            smoothed(row, label, smoothing) for row, label in zip(call.logits, batch.labels.tolist(), strict=True)
        ]
        assert out.loss.item() == pytest.approx(sum(losses) / 13, rel=1e-5)
        assert all(parameter.grad is not None for parameter in model.parameters())
        right = sum(row.argmax().item() == label for row, label in zip(call.logits, batch.labels.tolist(), strict=True))
        assert out.sums["natural_correct"] == right


@pytest.mark.parametrize("size", [1, 4, 30])
def test_correct_is_what_a_loop_in_eval_mode_counts(size: int) -> None:
    model = nn.Sequential(make_net(), nn.Dropout(0.9)).train()
    model(torch.rand(20, 1, 4, 4))  # moves the running statistics away from the batch's
    data = Images(torch.randint(256, (30, 1, 4, 4), dtype=torch.uint8), torch.randint(CLASSES, (30,)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    got = correct(model, Batches(data, Batching(size)).epoch())
    assert model.training
    assert model[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.eval()
    expected = []
    for image, label in zip(data.images, data.labels.tolist(), strict=True):
        scores = model(image[None] / 255).flatten().tolist()
        expected.append(scores.index(max(scores)) == label)
    assert got.dtype == torch.bool
    assert got.tolist() == expected
    assert 0 < sum(expected) < 30


@pytest.mark.parametrize("classes", [6, 100])
def test_top_k_is_scikit_learns(classes: int) -> None:
    logits, labels = torch.randn(200, classes), torch.randint(classes, (200,))
    for k, top in ((1, top1), (5, top5)):
        expected = top_k_accuracy_score(labels.numpy(), logits.numpy(), k=k, labels=range(classes))
        assert top(logits, labels).double().mean().item() == pytest.approx(expected, abs=1e-12)


def test_equal_logits_are_not_five_correct_guesses() -> None:
    logits, labels = torch.zeros(100, 20), torch.arange(100) % 20
    assert bool((top1(logits, labels) <= top5(logits, labels)).all())
    assert top5(logits, labels).double().mean() < 0.35

"""A batch computed in parts gives the gradient of its mean loss, one update and one report."""

import io
import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from dkl.assembly import preflight
from dkl.config import compose_config
from dkl.console import Bar
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import IKL
from dkl.tasks import Classification, Distillation, Task
from dkl.training.loop import NonFiniteLossError, train_epoch
from tests.official.distillation import ikl
from tests.tasks.common import CLASSES, Spy, make_attack, make_batch, make_task

LR = 0.5


class Given:
    """A loader of given batches, which may be the share of one process."""

    def __init__(self, *batches: Batch) -> None:
        self.batches, self.labels = batches, batches[0].labels

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, epoch: int = 0) -> Iterator[Batch]:
        return iter(self.batches)


def make_net() -> nn.Module:
    """A network without BatchNorm, whose statistics would be those of one part."""
    return nn.Sequential(nn.Conv2d(1, 5, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(80, CLASSES)).double()


def doubles(size: int, **place: int) -> Batch:
    batch = make_batch(size)
    return batch._replace(images=batch.images.double(), **place)


def one_epoch(task: Task, batches: Given, accumulate: int, epoch: int = 1) -> dict[str, float]:
    """Train one epoch by plain gradient descent at ``LR``: only the gradient changes the weights."""
    optimizer = torch.optim.SGD(task.model.parameters(), lr=LR)
    bar = Bar("", len(batches), 0, Console(file=io.StringIO()))
    return train_epoch(task, batches, optimizer, epoch=epoch, epochs=4, bar=bar, accumulate=accumulate)


def descended(model: nn.Module, loss: Tensor) -> list[Tensor]:
    """Return the weights after one gradient step, computed by autograd alone."""
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    return [(weight - LR * gradient).detach() for weight, gradient in zip(parameters, gradients, strict=True)]


@pytest.mark.parametrize("accumulate", [1, 2, 4, 9, 20])
def test_parts_give_the_gradient_of_the_whole_batch(accumulate: int) -> None:
    model, batch = make_net(), doubles(9)
    logits = model(batch.images)
    loss = F.cross_entropy(logits, batch.labels)
    right = (logits.argmax(-1) == batch.labels).double().mean().item()
    expected, spy = descended(model, loss), Spy(model)
    row = one_epoch(Classification(model, num_classes=CLASSES), Given(batch), accumulate)
    torch.testing.assert_close(list(model.parameters()), expected, rtol=0, atol=1e-15)
    assert row["loss"] == pytest.approx(loss.item(), rel=1e-12)
    assert row["natural_accuracy"] == pytest.approx(right)
    sizes = [len(call.images) for call in spy.calls]
    assert sum(sizes) == 9
    assert len(sizes) == min(accumulate, 9)
    assert max(sizes) == -(-9 // len(sizes))  # the memory of a part


def test_the_speed_counts_each_image_once_however_many_views(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dkl.training.loop.time.perf_counter", itertools.count().__next__)  # 2 s from start to end
    row = one_epoch(Classification(make_net(), num_classes=CLASSES), Given(doubles(6, views=2)), accumulate=1)
    assert row["images_per_second"] == 3 / 2


def test_parts_of_a_share_are_weighted_by_the_whole_batch() -> None:
    model, share = make_net(), doubles(5, first=7, total=12)
    expected = descended(model, F.cross_entropy(model(share.images), share.labels, reduction="sum") / 12)
    one_epoch(Classification(model, num_classes=CLASSES), Given(share), 3)
    torch.testing.assert_close(list(model.parameters()), expected, rtol=0, atol=1e-15)


def test_views_of_an_image_stay_in_one_part() -> None:
    model, batch = make_net(), doubles(12)._replace(views=2)
    expected, spy = descended(model, F.cross_entropy(model(batch.images), batch.labels)), Spy(model)
    one_epoch(Classification(model, num_classes=CLASSES), Given(batch), 3)
    torch.testing.assert_close(list(model.parameters()), expected, rtol=0, atol=1e-15)
    for number, call in enumerate(spy.calls):
        places = [2 * number, 2 * number + 1, 6 + 2 * number, 7 + 2 * number]
        assert torch.equal(call.images, batch.images[places])


@pytest.mark.parametrize("accumulate", [1, 3])
def test_distillation_with_a_prior_is_that_of_whole_batches(accumulate: int) -> None:
    model, teacher, batches = make_net(), make_net(), Given(doubles(9), doubles(5))
    loss = IKL(wmse_weight=3.0, ce_weight=2.0, ce_temperature=4.0)
    task = Distillation(model, teacher, loss, num_classes=CLASSES, warmup_epochs=2, prior_temperature=2.0)
    prior = torch.full((CLASSES, CLASSES), 1 / CLASSES, dtype=torch.float64)
    oracle = make_net()
    oracle.load_state_dict(model.state_dict())
    for epoch in (1, 2):
        softened = []
        for batch in batches.batches:
            given, taught = oracle(batch.images), teacher(batch.images).detach()
            softened.append((taught / 2).softmax(1))
            settings = {"alpha": 2.0, "beta": 3.0, "temperature": 4.0, "t2": 1.0, "gi": True}
            whole = F.cross_entropy(given, batch.labels) + epoch / 2 * ikl(
                given, taught, prior[batch.labels], **settings
            )
            for weight, value in zip(list(oracle.parameters()), descended(oracle, whole), strict=True):
                weight.data = value
        rows, labels = torch.cat(softened), torch.cat([batch.labels for batch in batches.batches])
        prior = torch.stack([rows[labels == label].mean(0) for label in range(CLASSES)])
        one_epoch(task, batches, accumulate, epoch)
        torch.testing.assert_close(list(model.parameters()), list(oracle.parameters()), rtol=0, atol=1e-13)
        torch.testing.assert_close(task.prior.table, prior, rtol=0, atol=1e-14)


@pytest.mark.parametrize("objective", [None, IKL(wmse_weight=3.0, ce_weight=2.0)], ids=["ce", "ikl"])
@pytest.mark.parametrize("sigma", [None, 0.001])
def test_adversarial_training_in_parts_is_that_of_whole_batches(objective: IKL | None, sigma: float | None) -> None:
    nets, batches = (make_net(), make_net(), make_net()), Given(doubles(9), doubles(5), doubles(8, first=3, total=12))
    noise = []
    for model in nets:
        model.load_state_dict(nets[0].state_dict())
    for model, accumulate in zip(nets, (1, 3, 4), strict=True):
        task = make_task(model, attack=make_attack(objective=objective, sigma=sigma))
        one_epoch(task, batches, accumulate)
        noise.append(task.state_dict()["noise"])
        torch.testing.assert_close(list(model.parameters()), list(nets[0].parameters()), rtol=0, atol=1e-13)
    assert torch.equal(noise[0], noise[1])
    assert torch.equal(noise[0], noise[2])


def test_no_step_is_taken_where_a_later_part_is_not_finite() -> None:
    model, batch = make_net(), doubles(8)
    batch.images[6] = float("nan")
    before = [weight.clone() for weight in model.parameters()]
    with pytest.raises(NonFiniteLossError) as caught:
        one_epoch(Classification(model, num_classes=CLASSES), Given(batch), 4)
    assert torch.equal(caught.value.batch.labels, batch.labels[6:])
    assert all(torch.equal(weight, old) for weight, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["trainer.accumulate=33"],
            r"trainer\.devices=1 and trainer\.accumulate=33 cut a batch of 32 into 33 parts: lower",
        ),
        (["trainer.accumulate=17", "trainer.devices=2"], r"into 34 parts: lower one of them"),
        (["trainer.accumulate=0"], r"trainer\.accumulate=0 must be a whole number from 1"),
        (["trainer.accumulate=2", "task.awp.gamma=0.005"], r"task\.awp .* whole batch.*set trainer\.accumulate=1"),
        (
            ["trainer.accumulate=2", "data=scenes", "recipe=apd", "task.teacher.name=pspnet_resnet18_w32"],
            r"task\.prototype_weight=10\.0 .* whole batch.*set trainer\.accumulate=1",
        ),
    ],
)
def test_what_cannot_be_cut_is_refused_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        preflight(compose_config("train", ["trainer.batch_size=32", *overrides]))


def test_as_many_parts_as_images_and_attacks_without_awp_are_no_mistake() -> None:
    preflight(compose_config("train", ["trainer.batch_size=32", "trainer.accumulate=32", "task.awp.gamma=0"]))

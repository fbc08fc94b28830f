"""PGD-AT, MART and LBGAT: their losses are those of the equations, and a step is that of plain PyTorch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import IKL, KL
from dkl.storage import checkpoint
from dkl.tasks import AWP, LBGAT, MART, PGDTraining, Progress, Task
from dkl.tasks.adversarial_baselines import mart_loss
from tests.official.baselines import DECAY, LR, ascended, attacked, descended
from tests.tasks.common import CLASSES, Spy, make_attack, make_batch, make_net

FIRST = Progress(1, 4)


def double_batch(size: int = 9) -> Batch:
    """A batch in float64."""
    batch = make_batch(size)
    return batch._replace(images=batch.images.double())


def take_step(task: Task, batch: Batch, progress: Progress = FIRST) -> tuple[Tensor, list[Tensor]]:
    """The loss of one step, and all parameters after it."""
    named = list(task.named_parameters())
    optimizer = torch.optim.SGD([w for _, w in named], lr=LR, momentum=0.9, weight_decay=DECAY)
    task.model.train()
    with task.step(batch, progress) as out:
        out.loss.backward()
        optimizer.step()
    optimizer.zero_grad()
    return out.loss.detach(), [w.detach().clone() for _, w in named]


def assert_close(got: list[Tensor], expected: list[Tensor]) -> None:
    """Equal to 1e-10."""
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


def cross_entropy(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """Its mean over the batch, as a function of the logits."""
    return lambda logits: F.cross_entropy(logits, labels)


def make_pgd(model: nn.Module, **settings: Any) -> PGDTraining:
    return PGDTraining(model, make_attack(sigma=None, objective=None), **settings)


def test_pgd_at_forwards_adversarial_images_once_a_step_and_once_in_training() -> None:
    for steps in [0, 1, 3]:
        model, batch = make_net(), make_batch()
        spy = Spy(model)
        take_step(PGDTraining(model, make_attack(sigma=None, steps=steps)), batch)
        assert [call.training for call in spy.calls] == [False] * steps + [True]
        assert not any(torch.equal(call.images, batch.images) for call in spy.calls)


def test_batchnorm_of_pgd_at_moves_by_the_adversarial_images_only() -> None:
    model = make_net()
    spy = Spy(model)
    model.train()
    with make_pgd(model).step(make_batch(), FIRST):
        pass
    maps = model[0](spy.calls[-1].images).detach().transpose(0, 1).flatten(1)
    assert model[1].num_batches_tracked == 1
    torch.testing.assert_close(model[1].running_mean, 0.1 * maps.mean(1))
    torch.testing.assert_close(model[1].running_var, 0.9 + 0.1 * maps.var(1))


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_a_step_of_pgd_at_is_that_of_plain_pytorch(gamma: float) -> None:
    model, batch = make_net().double(), double_batch()
    loss = cross_entropy(batch.labels)
    before = [w.detach().clone() for w in model.parameters()]
    task = make_pgd(model, awp=AWP(gamma=gamma, start=1))
    reference, spy = make_net().double(), Spy(model)
    reference.load_state_dict(model.state_dict())
    got, parameters = take_step(task, batch)
    adversarial = attacked(reference, batch.images, spy.calls[0].images, loss)
    assert_close([spy.calls[-1].images], [adversarial])
    reference.train()
    changes = ascended(reference, lambda net: loss(net(adversarial)), gamma)
    expected = descended([reference], lambda net: loss(net(adversarial)), changes)
    assert_close(parameters, expected)
    assert_close([got], [loss(spy.calls[-1].logits)])
    assert all(not torch.equal(after, old) for after, old in zip(parameters, before, strict=True))


@pytest.mark.parametrize("smoothing", [0.0, 0.5])
def test_labels_of_pgd_at_are_smoothed_over_all_classes(smoothing: float) -> None:
    model, batch = make_net().double(), double_batch()
    spy = Spy(model)
    got, _ = take_step(make_pgd(model, label_smoothing=smoothing), batch)
    q = smoothing / CLASSES + (1 - smoothing) * torch.eye(CLASSES, dtype=torch.float64)[batch.labels]
    expected = -(q * spy.calls[-1].logits.log_softmax(-1)).sum(-1).mean()
    assert_close([got], [expected])


def official_mart(natural: Tensor, adversarial: Tensor, labels: Tensor, weight: float) -> Tensor:
    """The equation with probabilities and the official constants, one sample at a time."""
    total = torch.zeros((), dtype=natural.dtype)
    for m, n, y in zip(natural, adversarial, labels.tolist(), strict=True):
        p, q = torch.exp(m) / torch.exp(m).sum(), torch.exp(n) / torch.exp(n).sum()
        first, second = sorted(range(len(q)), key=q.tolist().__getitem__, reverse=True)[:2]
        rival = second if first == y else first
        boosted = -torch.log(q[y]) - torch.log(1.0001 - q[rival] + 1e-12)
        divergence = sum(p[c] * (torch.log(p[c]) - torch.log(q[c] + 1e-12)) for c in range(len(p)))
        total = total + boosted + weight * divergence * (1.0000001 - p[y])
    return total / len(labels)


def logits(size: int = 12, classes: int = 5, scale: float = 3.0) -> tuple[Tensor, Tensor, Tensor]:
    """Natural and adversarial logits in float64; half the labels are the adversarial top class, the others are not."""
    natural, adversarial = (scale * torch.randn(size, classes, dtype=torch.float64) for _ in range(2))
    labels = adversarial.argmax(-1)
    labels[size // 2 :] = (labels[size // 2 :] + 1) % classes
    return natural.requires_grad_(), adversarial.requires_grad_(), labels


def test_value_and_gradients_of_mart_are_the_equations() -> None:
    for weight in [0.0, 5.0, 6.0]:
        natural, adversarial, labels = logits()
        got, expected = (
            mart_loss(natural, adversarial, labels, beta=weight),
            official_mart(natural, adversarial, labels, weight),
        )
        assert_close([got], [expected])
        assert_close(
            list(torch.autograd.grad(got, (natural, adversarial))),
            list(torch.autograd.grad(expected, (natural, adversarial))),
        )


def test_mart_in_float32_is_float64s_even_where_predictions_are_sure() -> None:
    for scale in [1.0, 8.0, 60.0]:
        natural, adversarial, labels = logits(scale=scale)
        single = [x.detach().float().requires_grad_() for x in (natural, adversarial)]
        exact = [x.detach().double().requires_grad_() for x in single]
        got, expected = mart_loss(*single, labels), official_mart(*exact, labels, 6.0)
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
        pairs = zip(torch.autograd.grad(got, single), torch.autograd.grad(expected, exact), strict=True)
        for one, other in pairs:
            assert torch.isfinite(one).all()
            torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)


def test_a_rival_that_is_all_but_certain_costs_the_same_in_float32() -> None:
    logits = torch.tensor([[0.0, 14.0, 0.5], [13.0, 0.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    expected = official_mart(logits, logits, labels, 0.0)  # 1.0001 − q in float32 is off by some 3e-5 of it
    torch.testing.assert_close(mart_loss(logits.float(), logits.float(), labels).double(), expected, rtol=1e-6, atol=0)


def test_hopeless_logits_stay_finite() -> None:
    extreme = torch.tensor([[500.0, -500.0, 0.0], [-500.0, 500.0, 0.0]], requires_grad=True)
    other = torch.tensor([[-500.0, 500.0, 0.0], [-500.0, 500.0, 0.0]], requires_grad=True)
    loss = mart_loss(extreme, other, torch.tensor([0, 0]))
    gradients = torch.autograd.grad(loss, (extreme, other))
    assert all(torch.isfinite(value).all() for value in (loss, *gradients))


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_a_step_of_mart_is_that_of_plain_pytorch(gamma: float) -> None:
    model, batch = make_net().double(), double_batch()
    reference, spy = make_net().double(), Spy(model)
    reference.load_state_dict(model.state_dict())
    task = MART(model, make_attack(), beta=5.0, awp=AWP(gamma=gamma, start=1))
    got, parameters = take_step(task, batch)
    assert 0 < (spy.calls[0].images - batch.images).abs().max() < 0.01  # the Gaussian start
    adversarial = attacked(reference, batch.images, spy.calls[0].images, cross_entropy(batch.labels))
    reference.train()

    def loss(net: nn.Module) -> Tensor:
        return official_mart(net(batch.images), net(adversarial), batch.labels, 5.0)

    changes = ascended(reference, loss, gamma)
    assert_close(parameters, descended([reference], loss, changes))
    natural, perturbed = spy.calls[-2:]
    assert torch.equal(natural.images, batch.images)
    assert_close([perturbed.images], [adversarial])
    assert_close([got], [official_mart(natural.logits, perturbed.logits, batch.labels, 5.0)])
    assert [call.training for call in spy.calls] == [False] * 3 + [True] * (2 if gamma == 0 else 4)
    assert model[1].num_batches_tracked == 2


def make_guide() -> nn.Sequential:
    """Another network than the model."""
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES))


def make_lbgat(model: nn.Module, guide: nn.Module, **settings: Any) -> LBGAT:
    return LBGAT(model, guide, make_attack(objective=KL()), **settings)


def divergence(natural: Tensor, adversarial: Tensor) -> Tensor:
    """Sum over the batch of KL of both softmaxes."""
    p, q = torch.exp(natural), torch.exp(adversarial)
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return (p * torch.log(p / q)).sum()


def official_lbgat(natural: Tensor, adversarial: Tensor, guide: Tensor, labels: Tensor, weight: float) -> Tensor:
    """The equation, written out."""
    mse = ((adversarial - guide) ** 2).sum() / guide.numel()
    right = guide[torch.arange(len(labels)), labels]
    cross_entropy = (torch.log(torch.exp(guide).sum(1)) - right).mean()
    return mse + cross_entropy + weight * divergence(natural, adversarial) / len(labels)


@pytest.mark.parametrize("gamma", [0.0, 0.01])
@pytest.mark.parametrize("weight", [0.0, 6.0])
def test_a_step_of_both_networks_of_lbgat_is_that_of_plain_pytorch(weight: float, gamma: float) -> None:
    model, guide, batch = make_net().double(), make_guide().double(), double_batch()
    twins = [make_net().double(), make_guide().double()]
    for twin, network in zip(twins, (model, guide), strict=True):
        twin.load_state_dict(network.state_dict())
    spy, witness = Spy(model), Spy(guide)
    task = make_lbgat(model, guide, beta=weight, awp=AWP(gamma=gamma, start=1))
    before = [w.detach().clone() for _, w in task.named_parameters()]
    got, parameters = take_step(task, batch)

    with torch.no_grad():
        natural = twins[0].eval()(batch.images)
    start = spy.calls[1].images  # after the natural images of the objective
    adversarial = attacked(twins[0], batch.images, start, lambda logits: divergence(natural, logits))
    for twin in twins:
        twin.train()

    def loss(net: nn.Module, other: nn.Module = twins[1]) -> Tensor:
        return official_lbgat(net(batch.images), net(adversarial), other(batch.images), batch.labels, weight)

    changes = ascended(twins[0], loss, gamma)
    twins[1].zero_grad()
    assert_close(parameters, descended(twins, loss, changes))
    perturbed, clean = spy.calls[-2:]
    assert_close([perturbed.images, clean.images], [adversarial, batch.images])
    outputs = (clean.logits, perturbed.logits, witness.calls[-1].logits)
    assert_close([got], [official_lbgat(*outputs, batch.labels, weight)])
    assert all(not torch.equal(after, old) for after, old in zip(parameters, before, strict=True))
    assert (model[1].num_batches_tracked, guide[1].num_batches_tracked) == (2, 1)


def test_both_networks_are_trained_under_names_of_their_own() -> None:
    model, guide = make_net(), make_guide()
    named = dict(make_lbgat(model, guide).named_parameters())
    assert len(named) == len(list(model.parameters())) + len(list(guide.parameters()))
    assert named["0.weight"] is model[0].weight
    assert named["guide.0.weight"] is guide[0].weight


def test_the_guide_follows_the_model_and_is_in_train_mode() -> None:
    guide = make_guide().eval()
    make_lbgat(make_net().double(), guide)
    assert {w.dtype for w in guide.parameters()} == {torch.float64}
    assert guide[1].training


def test_lbgat_that_is_saved_and_loaded_takes_the_same_next_step(tmp_path: Path) -> None:
    model, batches = make_net(), [make_batch() for _ in range(2)]
    task = make_lbgat(model, make_guide())
    take_step(task, batches[0])
    checkpoint.save(tmp_path / "task.pt", {"task": task.state_dict(), "model": model.state_dict()})
    content = checkpoint.read(tmp_path / "task.pt")
    resumed, forgetful = (make_lbgat(make_net(), make_guide(), seed=9) for _ in range(2))
    for other in (resumed, forgetful):
        other.model.load_state_dict(content["model"])
    resumed.load_state_dict(content["task"])
    for name, value in task.guide.state_dict().items():
        assert torch.equal(resumed.guide.state_dict()[name], value)
    expected = take_step(task, batches[1])[1]
    assert all(map(torch.equal, take_step(resumed, batches[1])[1], expected))
    assert not all(map(torch.equal, take_step(forgetful, batches[1])[1], expected))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda net: PGDTraining(net, None), "attack=pgd"),
        (lambda net: PGDTraining(net, {"objective": None}), "attack=pgd"),
        (lambda net: PGDTraining(net, make_attack(objective=IKL())), "weighting=sample"),
        (lambda net: PGDTraining(net, make_attack(), label_smoothing=1.0), "label_smoothing"),
        (lambda net: MART(net, None), "attack=pgd"),
        (lambda net: MART(net, make_attack(), beta=-1.0), r"task\.beta"),
        (lambda net: make_lbgat(net, make_guide(), beta=-1.0), r"task\.beta"),
    ],
)
def test_mistakes_say_how_to_fix_them(make: Callable[[nn.Module], Task], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make(make_net())

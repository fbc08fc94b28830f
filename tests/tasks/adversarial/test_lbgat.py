"""LBGAT trains two networks by one loss: a step of both is that of plain PyTorch, and the guide is part of the run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.losses import KL
from dkl.storage import checkpoint
from dkl.tasks import AWP, LBGAT
from tests.official.baselines import ascended, attacked, descended
from tests.tasks.adversarial.baselines import FIRST, assert_close, composed_steps, double_batch, take_step
from tests.tasks.common import CLASSES, Spy, make_attack, make_batch, make_net


def make_guide() -> nn.Sequential:
    """Another network than the model."""
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES))


def make_task(model: nn.Module, guide: nn.Module, **settings: Any) -> LBGAT:
    return LBGAT(model, guide, make_attack(objective=KL()), **settings)


def divergence(natural: Tensor, adversarial: Tensor) -> Tensor:
    """Sum over the batch of KL of both softmaxes."""
    p, q = torch.exp(natural), torch.exp(adversarial)
    p, q = p / p.sum(1, keepdim=True), q / q.sum(1, keepdim=True)
    return (p * torch.log(p / q)).sum()


def official(natural: Tensor, adversarial: Tensor, guide: Tensor, labels: Tensor, weight: float) -> Tensor:
    """The equation, written out."""
    mse = ((adversarial - guide) ** 2).sum() / guide.numel()
    right = guide[torch.arange(len(labels)), labels]
    cross_entropy = (torch.log(torch.exp(guide).sum(1)) - right).mean()
    return mse + cross_entropy + weight * divergence(natural, adversarial) / len(labels)


@pytest.mark.parametrize("gamma", [0.0, 0.01])
@pytest.mark.parametrize("weight", [0.0, 6.0])
def test_a_step_of_both_networks_is_that_of_plain_pytorch(weight: float, gamma: float) -> None:
    model, guide, batch = make_net().double(), make_guide().double(), double_batch()
    twins = [make_net().double(), make_guide().double()]
    for twin, network in zip(twins, (model, guide), strict=True):
        twin.load_state_dict(network.state_dict())
    spy, witness = Spy(model), Spy(guide)
    task = make_task(model, guide, beta=weight, awp=AWP(gamma=gamma, start=1))
    before = [w.detach().clone() for _, w in task.named_parameters()]
    got, parameters = take_step(task, batch)

    with torch.no_grad():
        natural = twins[0].eval()(batch.images)
    start = spy.calls[1].images  # after the natural images of the objective
    adversarial = attacked(twins[0], batch.images, start, lambda logits: divergence(natural, logits))
    for twin in twins:
        twin.train()

    def loss(net: nn.Module, other: nn.Module = twins[1]) -> Tensor:
        return official(net(batch.images), net(adversarial), other(batch.images), batch.labels, weight)

    changes = ascended(twins[0], loss, gamma)
    twins[1].zero_grad()
    assert_close(parameters, descended(twins, loss, changes))
    perturbed, clean = spy.calls[-2:]
    assert_close([perturbed.images, clean.images], [adversarial, batch.images])
    assert_close([got], [official(clean.logits, perturbed.logits, witness.calls[-1].logits, batch.labels, weight)])
    assert all(not torch.equal(after, old) for after, old in zip(parameters, before, strict=True))
    assert (model[1].num_batches_tracked, guide[1].num_batches_tracked) == (2, 1)


def test_the_attack_leaves_the_guide_alone() -> None:
    model, guide, batch = make_net(), make_guide(), make_batch()
    witness = Spy(guide)
    task = make_task(model, guide)
    task.perturb(batch, FIRST)
    assert witness.calls == []
    take_step(task, batch)
    (call,) = witness.calls
    assert (call.training, call.differentiated) == (True, True)
    assert torch.equal(call.images, batch.images)


def test_awp_ascends_through_the_model_alone() -> None:
    guide, recorded = make_guide(), []
    guide.register_forward_hook(lambda module, images, logits: recorded.append(logits.requires_grad))
    take_step(make_task(make_net(), guide, awp=AWP(gamma=0.01, start=1)), make_batch())
    assert recorded == [False, True]


def test_both_networks_are_trained_under_names_of_their_own() -> None:
    model, guide = make_net(), make_guide()
    named = dict(make_task(model, guide).named_parameters())
    assert len(named) == len(list(model.parameters())) + len(list(guide.parameters()))
    assert named["0.weight"] is model[0].weight
    assert named["guide.0.weight"] is guide[0].weight


def test_the_guide_follows_the_model_and_is_in_train_mode() -> None:
    guide = make_guide().eval()
    make_task(make_net().double(), guide)
    assert {w.dtype for w in guide.parameters()} == {torch.float64}
    assert guide[1].training


def test_a_task_that_is_saved_and_loaded_takes_the_same_next_step(tmp_path: Path) -> None:
    model, batches = make_net(), [make_batch() for _ in range(2)]
    task = make_task(model, make_guide())
    take_step(task, batches[0])
    checkpoint.save(tmp_path / "task.pt", {"task": task.state_dict(), "model": model.state_dict()})
    content = checkpoint.read(tmp_path / "task.pt")
    resumed, forgetful = (make_task(make_net(), make_guide(), seed=9) for _ in range(2))
    for other in (resumed, forgetful):
        other.model.load_state_dict(content["model"])
    resumed.load_state_dict(content["task"])
    for name, value in task.guide.state_dict().items():
        assert torch.equal(resumed.guide.state_dict()[name], value)
    expected = take_step(task, batches[1])[1]
    assert all(map(torch.equal, take_step(resumed, batches[1])[1], expected))
    assert not all(map(torch.equal, take_step(forgetful, batches[1])[1], expected))


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(UserError, match=r"task\.beta"):
        make_task(make_net(), make_guide(), beta=-1.0)


def test_the_guide_comes_from_the_task_and_fits_the_data() -> None:
    small = "task.guide.name=preact_resnet18_w16"
    steps = list(composed_steps(["recipe=lbgat", small, "task.beta=0", "attack.steps=2"]))
    for task, reported in steps:
        assert isinstance(task, LBGAT)
        assert (task.attack.objective, task.attack.sigma, task.kl.weight) == (KL(), 0.001, 0.0)
        assert task.guide(torch.rand(2, 1, 8, 8)).shape == (2, 10)
        assert math.isfinite(reported["loss"])
        assert reported.keys() == {"loss", "natural_correct", "adversarial_correct", "guide_correct"}
    assert len(steps) == 2

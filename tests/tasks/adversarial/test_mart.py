"""MART's loss and step are those of its equation, sample by sample, in plain PyTorch."""

import math

import pytest
import torch
from torch import Tensor, nn

from dkl.errors import UserError
from dkl.tasks import AWP, MART
from dkl.tasks.adversarial_baselines import boosted_cross_entropy, mart_loss
from tests.official.baselines import ascended, attacked, descended
from tests.tasks.adversarial.baselines import assert_close, composed_steps, cross_entropy, double_batch, take_step
from tests.tasks.common import Spy, make_attack, make_net


def official(natural: Tensor, adversarial: Tensor, labels: Tensor, weight: float) -> Tensor:
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


def test_value_and_gradients_are_the_equations() -> None:
    for weight in [0.0, 5.0, 6.0]:
        natural, adversarial, labels = logits()
        got, expected = (
            mart_loss(natural, adversarial, labels, beta=weight),
            official(natural, adversarial, labels, weight),
        )
        assert_close([got], [expected])
        assert_close(
            list(torch.autograd.grad(got, (natural, adversarial))),
            list(torch.autograd.grad(expected, (natural, adversarial))),
        )


def test_the_rival_is_the_most_probable_other_class() -> None:
    for label, rival in [(2, 0), (0, 2), (1, 2)]:
        probabilities = torch.tensor([[0.3, 0.1, 0.6]], dtype=torch.float64)
        got = boosted_cross_entropy(probabilities.log(), torch.tensor([label]))
        q = probabilities[0].tolist()
        assert float(got) == pytest.approx(-math.log(q[label]) - math.log(1.0001 - q[rival] + 1e-12), rel=1e-12)


def test_float32_is_float64s_even_where_predictions_are_sure() -> None:
    for scale in [1.0, 8.0, 60.0]:
        natural, adversarial, labels = logits(scale=scale)
        single = [x.detach().float().requires_grad_() for x in (natural, adversarial)]
        exact = [x.detach().double().requires_grad_() for x in single]
        got, expected = mart_loss(*single, labels), official(*exact, labels, 6.0)
        torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-6)
        pairs = zip(torch.autograd.grad(got, single), torch.autograd.grad(expected, exact), strict=True)
        for one, other in pairs:
            assert torch.isfinite(one).all()
            torch.testing.assert_close(one.double(), other, rtol=1e-3, atol=1e-4)


def test_a_rival_that_is_all_but_certain_costs_the_same_in_float32() -> None:
    logits = torch.tensor([[0.0, 14.0, 0.5], [13.0, 0.0, -1.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    expected = official(logits, logits, labels, 0.0)  # 1.0001 − q in float32 is off by some 3e-5 of it
    torch.testing.assert_close(mart_loss(logits.float(), logits.float(), labels).double(), expected, rtol=1e-6, atol=0)


def test_hopeless_logits_stay_finite() -> None:
    extreme = torch.tensor([[500.0, -500.0, 0.0], [-500.0, 500.0, 0.0]], requires_grad=True)
    other = torch.tensor([[-500.0, 500.0, 0.0], [-500.0, 500.0, 0.0]], requires_grad=True)
    loss = mart_loss(extreme, other, torch.tensor([0, 0]))
    gradients = torch.autograd.grad(loss, (extreme, other))
    assert all(torch.isfinite(value).all() for value in (loss, *gradients))


@pytest.mark.parametrize("gamma", [0.0, 0.01])
def test_a_step_is_that_of_plain_pytorch(gamma: float) -> None:
    model, batch = make_net().double(), double_batch()
    reference, spy = make_net().double(), Spy(model)
    reference.load_state_dict(model.state_dict())
    task = MART(model, make_attack(), beta=5.0, awp=AWP(gamma=gamma, start=1))
    got, parameters = take_step(task, batch)
    assert 0 < (spy.calls[0].images - batch.images).abs().max() < 0.01  # the Gaussian start
    adversarial = attacked(reference, batch.images, spy.calls[0].images, cross_entropy(batch.labels))
    reference.train()

    def loss(net: nn.Module) -> Tensor:
        return official(net(batch.images), net(adversarial), batch.labels, 5.0)

    changes = ascended(reference, loss, gamma)
    assert_close(parameters, descended([reference], loss, changes))
    natural, perturbed = spy.calls[-2:]
    assert torch.equal(natural.images, batch.images)
    assert_close([perturbed.images], [adversarial])
    assert_close([got], [official(natural.logits, perturbed.logits, batch.labels, 5.0)])
    assert [call.training for call in spy.calls] == [False] * 3 + [True] * (2 if gamma == 0 else 4)
    assert model[1].num_batches_tracked == 2


def test_mistakes_say_how_to_fix_them() -> None:
    for attack, settings in [(None, {}), (make_attack(), {"beta": -1.0})]:
        with pytest.raises(UserError, match=r"attack=pgd|task\.beta"):
            MART(make_net(), attack, **settings)


@pytest.mark.parametrize("overrides", [["recipe=mart"], ["recipe=mart", "task=mart", "task.awp.gamma=0.01"]])
def test_it_composes_and_trains(overrides: list[str]) -> None:
    steps = list(composed_steps([*overrides, "task.awp.start=1"]))
    for task, reported in steps:
        assert isinstance(task, MART)
        assert (task.attack.objective, task.attack.sigma, task.beta) == (None, 0.001, 6.0)
        assert math.isfinite(reported["loss"])
        assert reported.keys() == {"loss", "natural_correct", "adversarial_correct"}
    assert len(steps) == 2

"""AWP in place equals the proxy model of the official code, and leaves of itself nothing behind."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dkl.losses import IKL, JSD, WeightedSum, observed_terms
from dkl.tasks import AWP, Progress
from tests.attacks.common import assert_same, assert_unchanged, snapshot
from tests.official.adversarial import ProxyAWP
from tests.tasks.common import CLASSES, make_attack, make_batch, make_net, make_task

IMAGES = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(9) % CLASSES


def loss_of(model: nn.Module) -> Callable[[], Tensor]:
    """The cross-entropy of ``model`` on nine images, in the model's dtype."""
    dtype = next(model.parameters()).dtype
    return lambda: F.cross_entropy(model(IMAGES.to(dtype)), LABELS)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


def used_net() -> nn.Sequential:
    """A float64 network in train mode whose BatchNorm has seen images."""
    model = make_net().double().train()
    for _ in range(3):
        model(torch.rand(9, 1, 4, 4, dtype=torch.float64))
    return model


def test_the_perturbation_is_the_proxys() -> None:
    for share in [1.0, 0.25]:
        for gamma in [0.005, 0.3]:
            model = used_net()
            twin = copy.deepcopy(model)
            proxy = ProxyAWP(twin, gamma)
            proxy.add(proxy.difference(lambda net: loss_of(net)()), 1)
            before = weights_of(model)
            with AWP(gamma=gamma).perturbed(model, loss_of(model), epoch=10, share=share):
                for name, weight in model.named_parameters():
                    torch.testing.assert_close(weight, twin.get_parameter(name), rtol=0, atol=1e-12)
                moved = (model[0].weight - before["0.weight"]).norm() / before["0.weight"].norm()
                assert moved.item() == pytest.approx(gamma, rel=1e-9)


def test_the_log_has_the_terms_of_the_loss_and_not_those_of_the_ascent_or_the_attack() -> None:
    terms = {"ikl": {"loss": IKL()}, "jsd": {"loss": JSD(), "weight": 3.0}}
    loss, batch = WeightedSum(terms), make_batch()
    task = make_task(used_net().float(), loss, make_attack(objective=WeightedSum(terms)), awp=AWP(gamma=0.1, start=1))
    with observed_terms() as observed, task.step(batch, Progress(1, 1)) as out, torch.no_grad():
        (first,), (second,) = observed["loss/ikl"], observed["loss/jsd"]
        natural, _ = task.forward(batch, batch.images)
        expected = out.loss - F.cross_entropy(natural, batch.labels)
    assert (first + second).item() == pytest.approx(expected.item(), rel=1e-5)


class Odd(nn.Module):
    """Parameters that differ in name and dimension; all but one have the same effect on the loss."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("weight", "my_weight_v", "table", "bias"):
            self.register_parameter(name, nn.Parameter(torch.ones(2, 3)))
        self.weight_flat = nn.Parameter(torch.ones(3))
        self.weight_dead = nn.Parameter(torch.ones(2, 2))

    def forward(self) -> Tensor:
        live = [parameter for parameter in self.parameters() if parameter is not self.weight_dead]
        return sum(parameter.square().sum() for parameter in live) + 0 * self.weight_dead.square().sum()


def test_only_tensors_called_weight_of_two_dimensions_move_and_none_of_gradient_zero() -> None:
    model = Odd()
    before = weights_of(model)
    with AWP(gamma=0.1).perturbed(model, model, epoch=10):
        after = weights_of(model)
    assert {name for name in before if not torch.equal(before[name], after[name])} == {"weight", "my_weight_v"}
    torch.testing.assert_close(after["weight"], torch.full((2, 3), 1.1))


def held(model: nn.Sequential) -> None:
    """BatchNorm held in eval mode and a bias frozen, as in fine-tuning."""
    model[1].eval()
    model[0].bias.requires_grad_(False)


def but_weights(model: nn.Module) -> dict[str, object]:
    """A snapshot without the values of parameters."""
    weights = {f"state {name}" for name, _ in model.named_parameters()}
    return {key: value for key, value in snapshot(model).items() if key not in weights}


@pytest.mark.parametrize("prepare", [nn.Module.train, nn.Module.eval, held], ids=["train", "eval", "held"])
def test_entry_and_exit_leave_buffers_modes_flags_and_gradients(prepare: Callable[[nn.Module], object]) -> None:
    model = used_net()
    loss_of(model)().backward()  # gradients of a step before, which AWP must not add to
    prepare(model)
    before, weights = but_weights(model), weights_of(model)
    assert before["state 1.num_batches_tracked"] == 4
    with AWP().perturbed(model, loss_of(model), epoch=10):
        assert_same(but_weights(model), before)
    assert_same(but_weights(model), before)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), weights[name], rtol=0, atol=1e-15)


def test_the_model_is_perturbed_where_it_lies() -> None:
    model = used_net()
    places = [parameter.data_ptr() for parameter in model.parameters()]
    before = weights_of(model)
    with AWP().perturbed(model, loss_of(model), epoch=10):
        assert [parameter.data_ptr() for parameter in model.parameters()] == places
        assert not torch.equal(model[0].weight, before["0.weight"])
    assert [parameter.data_ptr() for parameter in model.parameters()] == places


def test_the_loss_is_computed_with_the_batchs_statistics() -> None:
    model, seen = used_net(), []
    expected = F.cross_entropy(copy.deepcopy(model).train()(IMAGES.double()), LABELS)

    def loss() -> Tensor:
        seen.append(loss_of(model)())
        return seen[-1]

    with AWP().perturbed(model.eval(), loss, epoch=10):
        pass
    torch.testing.assert_close(seen, [expected])


def test_what_the_body_makes_of_the_weights_is_kept_and_the_perturbation_taken_off() -> None:
    model = used_net()
    before = weights_of(model)
    step = {name: torch.randn_like(value) for name, value in before.items()}
    with AWP().perturbed(model, loss_of(model), epoch=10), torch.no_grad():
        for name, weight in model.named_parameters():
            weight += step[name]
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name] + step[name], rtol=0, atol=1e-15)


def test_the_weights_are_back_when_the_body_raises() -> None:
    model = used_net()
    before = weights_of(model)
    with pytest.raises(KeyError, match="from the body"), AWP().perturbed(model, loss_of(model), epoch=10):
        raise KeyError("from the body")
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.detach(), before[name], rtol=0, atol=1e-15)


def test_nothing_is_left_when_the_loss_raises() -> None:
    model = used_net()
    held(model)
    before = snapshot(model)

    def loss() -> Tensor:
        model(IMAGES.double())
        raise KeyError("from the loss")

    with pytest.raises(KeyError, match="from the loss"), AWP().perturbed(model, loss, epoch=10):
        pass
    assert_unchanged(model, before)


def test_off_and_before_its_start_it_does_nothing() -> None:
    for awp, epoch in [(AWP(gamma=0), 10), (AWP(), 9), (AWP(start=3), 2), (AWP(gamma=0, start=0), 1)]:
        model = used_net()
        before, calls = snapshot(model), []
        with awp.perturbed(model, lambda calls=calls: calls.append(1), epoch=epoch):
            assert_unchanged(model, before)
        assert_unchanged(model, before)
        assert not calls


def test_it_acts_from_its_start_on() -> None:
    for start, epoch in [(10, 10), (10, 200), (0, 1), (1, 1)]:
        model, calls = used_net(), []

        def loss(model: nn.Module = model, calls: list[int] = calls) -> Tensor:
            calls.append(1)
            return loss_of(model)()

        with AWP(start=start).perturbed(model, loss, epoch=epoch):
            pass
        assert calls == [1]


def test_under_autocast_forwards_see_the_weights_as_they_are() -> None:
    model = make_net().train()

    def fresh() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):  # no cast kept from before
            return copy.deepcopy(model)(IMAGES)

    first = fresh()
    with torch.autocast("cpu", torch.bfloat16):
        with AWP(gamma=0.5).perturbed(model, loss_of(model), epoch=10):
            inside = model(IMAGES)  # the loss has filled the cache with casts of the unperturbed weights
            assert torch.equal(inside, fresh())
            assert not torch.allclose(inside, first, rtol=0.05)
        assert torch.equal(model(IMAGES), fresh())
    torch.testing.assert_close(fresh(), first, rtol=0.05, atol=0.01)

"""Attack mode and pgd leave no trace: modes, flags, buffers, gradients and inputs are as before, even after errors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dkl.attacks import frozen_eval, pgd
from dkl.attacks.pgd import Norm
from tests.attacks.common import assert_unchanged, batchnorm_net, snapshot, summed_ce


def train(model: nn.Sequential) -> None:
    model.train()


def evaluate(model: nn.Sequential) -> None:
    model.eval()


def mixed(model: nn.Sequential) -> None:
    """A frozen BatchNorm inside a training model, a frozen layer, and an eval parent with training children."""
    model.train()
    model[1].eval()
    model[1].weight.requires_grad_(False)
    model[0].bias.requires_grad_(False)
    model.training = False


PREPARE = pytest.mark.parametrize("prepare", [train, evaluate, mixed])
NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])


@PREPARE
def test_attack_mode_is_eval_and_frozen_inside_and_as_before_outside(prepare: Callable[..., None]) -> None:
    model = batchnorm_net()
    prepare(model)
    before = snapshot(model)
    with frozen_eval(model) as inside:
        assert inside is model
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert_unchanged(model, before)


@PREPARE
def test_attack_mode_restores_when_the_body_raises(prepare: Callable[..., None]) -> None:
    model = batchnorm_net()
    prepare(model)
    before = snapshot(model)
    with pytest.raises(KeyError, match="from the body"), frozen_eval(model):
        raise KeyError("from the body")
    assert_unchanged(model, before)


def test_attack_modes_nest() -> None:
    model = batchnorm_net()
    mixed(model)
    before = snapshot(model)
    with frozen_eval(model):
        with frozen_eval(model):
            pass
        assert not any(module.training for module in model.modules())
        assert not any(parameter.requires_grad for parameter in model.parameters())
    assert_unchanged(model, before)


def test_shared_parameters_and_modules_are_restored() -> None:
    shared = nn.Linear(4, 4)
    shared.weight.requires_grad_(False)
    model = nn.Sequential(shared, nn.BatchNorm1d(4).eval(), shared)
    before = snapshot(model)
    with frozen_eval(model):
        pass
    assert_unchanged(model, before)


@NORMS
@PREPARE
def test_pgd_leaves_no_trace(prepare: Callable[..., None], norm: Norm) -> None:
    model = batchnorm_net()
    x, labels = torch.rand(6, 3, 8, 8), torch.randint(4, (6,))
    model(x).sum().backward()  # gradients in mid-accumulation, which must survive
    model[0].bias.grad = None
    prepare(model)
    before, image = snapshot(model), x.clone()
    result = pgd(model, x, summed_ce(labels), eps=0.1, step_size=0.05, steps=3, norm=norm)
    assert_unchanged(model, before)
    assert torch.equal(x, image)
    assert not x.requires_grad
    assert not result.requires_grad
    assert result.grad_fn is None
    assert not torch.equal(result, x)


def test_pgd_touches_neither_start_nor_an_input_with_a_graph() -> None:
    model = batchnorm_net()
    x = torch.rand(6, 3, 8, 8, requires_grad=True)
    image, start = (0.9 * x), torch.rand(6, 3, 8, 8)
    copies = image.detach().clone(), start.clone()
    result = pgd(model, image, summed_ce(torch.zeros(6).long()), eps=0.1, step_size=0.05, steps=2, start=start)
    assert x.grad is None
    assert torch.equal(image.detach(), copies[0])
    assert torch.equal(start, copies[1])
    assert not start.requires_grad
    assert not result.requires_grad


def test_pgd_leaves_no_trace_when_the_objective_raises() -> None:
    model = batchnorm_net()
    mixed(model)
    before = snapshot(model)

    def objective(logits: Tensor) -> Tensor:
        raise FloatingPointError("from the objective")

    with pytest.raises(FloatingPointError, match="from the objective"):
        pgd(model, torch.rand(2, 3, 8, 8), objective, eps=0.1, step_size=0.05, steps=2)
    assert_unchanged(model, before)


def test_pgd_attacks_the_model_in_eval_mode_and_under_no_grad() -> None:
    model = batchnorm_net().train()
    x, labels = torch.rand(6, 3, 8, 8), torch.randint(4, (6,))
    settings = {"eps": 0.1, "step_size": 0.05, "steps": 3, "start": x}
    with torch.no_grad():
        from_training = pgd(model, x, summed_ce(labels), **settings)
        assert not torch.is_grad_enabled()
    assert torch.equal(from_training, pgd(model.eval(), x, summed_ce(labels), **settings))

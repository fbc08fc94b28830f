"""Contexts that change modes, and pgd, leave no trace: modes, flags, buffers and gradients are as before."""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dkl.attacks import batch_norm_momentum, batch_statistics, frozen_eval, pgd, untracked_batch_norm
from dkl.attacks.pgd import Norm
from tests.attacks.common import assert_same, assert_unchanged, batchnorm_net, snapshot, summed_ce

WIDTH = 4
LAYERS: dict[str, Callable[[], nn.Module]] = {
    "linear": lambda: nn.Linear(WIDTH, WIDTH),
    "batchnorm": lambda: nn.BatchNorm1d(WIDTH),
    "cumulative": lambda: nn.BatchNorm1d(WIDTH, momentum=None),
    "untracked": lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False),
    "plain": lambda: nn.BatchNorm1d(WIDTH, affine=False, momentum=0.7),
    "layernorm": lambda: nn.LayerNorm(WIDTH),
    "dropout": lambda: nn.Dropout(0.5),
}
CONTEXTS: dict[str, Callable[[nn.Module], AbstractContextManager]] = {
    "batch statistics": batch_statistics,
    "untracked": untracked_batch_norm,
    "attack, running": frozen_eval,
    "attack, batch": lambda model: frozen_eval(model, batch_norm="batch"),
    "momentum": lambda model: batch_norm_momentum(model, 0.3),
}
CONTEXT = pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)


@st.composite
def models(draw: st.DrawFn) -> nn.Sequential:
    """Any stack of layers, some nested, with any modes, flags and momenta, used or not."""
    names = draw(st.lists(st.sampled_from(sorted(LAYERS)), min_size=1, max_size=5))
    layers = [LAYERS[name]() for name in names]
    nested = draw(st.integers(0, len(layers)))
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Sequential(*layers[:nested]), *layers[nested:])
    if draw(st.booleans()):
        model(torch.rand(6, WIDTH))
    for module in model.modules():
        module.training = draw(st.booleans())
        if isinstance(module, nn.BatchNorm1d) and module.running_mean is not None:
            module.momentum = draw(st.sampled_from([module.momentum, 0.01, 1.0, None]))
            module.track_running_stats = draw(st.booleans())
    for parameter in model.parameters():
        parameter.requires_grad_(draw(st.booleans()))
    return model


@CONTEXT
@given(model=models(), raises=st.booleans())
def test_every_setting_is_as_before(
    context: Callable[[nn.Module], AbstractContextManager], model: nn.Sequential, raises: bool
) -> None:
    before = snapshot(model)
    if raises:
        with pytest.raises(KeyError, match="from the body"), context(model):
            raise KeyError("from the body")
    else:
        with context(model):
            pass
    assert_unchanged(model, before)


@pytest.mark.parametrize("name", sorted(set(CONTEXTS) - {"momentum"}))
@given(model=models())
def test_a_forward_inside_moves_no_buffer(name: str, model: nn.Sequential) -> None:
    before = snapshot(model)
    with CONTEXTS[name](model):
        model(torch.rand(6, WIDTH))
    assert_unchanged(model, before)


@given(model=models())
def test_modes_and_flags_inside(model: nn.Sequential) -> None:
    flags = [parameter.requires_grad for parameter in model.parameters()]
    with batch_statistics(model):
        assert all(module.training for module in model.modules())
        assert [parameter.requires_grad for parameter in model.parameters()] == flags
    for kind, training in (("running", False), ("batch", True)):
        with frozen_eval(model, batch_norm=kind) as inside:
            assert inside is model
            assert all(module.training is training for module in model.modules())
            assert not any(parameter.requires_grad for parameter in model.parameters())


def trained_net() -> nn.Sequential:
    """Its running statistics are far from those of images in [0, 1]."""
    model = batchnorm_net().train()
    model[3] = nn.Identity()  # dropout would make forwards differ
    model(3 + 5 * torch.rand(6, 3, 8, 8))
    return model


@pytest.mark.parametrize("name", ["batch statistics", "attack, batch"])
def test_batchnorm_uses_the_statistics_of_the_batch(name: str) -> None:
    model, x = trained_net().eval(), torch.rand(6, 3, 8, 8)
    maps = model[0](x)
    normed = (maps - maps.mean((0, 2, 3), keepdim=True)) / (
        maps.var((0, 2, 3), correction=0, keepdim=True) + 1e-5
    ).sqrt()
    expected = model[5](F.softplus(normed).flatten(1))
    with CONTEXTS[name](model):
        torch.testing.assert_close(model(x), expected)
    assert not torch.allclose(model(x), expected, atol=1e-2)


def test_pgd_with_the_batchs_statistics_is_an_attack_in_train_mode() -> None:
    model, labels = trained_net().double().eval(), torch.arange(6) % 4
    x = torch.rand(6, 3, 8, 8, dtype=torch.float64)
    before, eps, step_size = snapshot(model), 0.1, 0.03
    settings = {"eps": eps, "step_size": step_size, "steps": 4, "start": x}
    ours = pgd(model, x, summed_ce(labels), batch_norm="batch", **settings)
    assert_unchanged(model, before)
    theirs, twin = x.clone(), copy.deepcopy(model).train()
    for _ in range(4):
        theirs.requires_grad_()
        (gradient,) = torch.autograd.grad(F.cross_entropy(twin(theirs), labels), theirs)
        stepped = (theirs.detach() + step_size * gradient.sign()).clamp(0, 1)
        theirs = torch.minimum(torch.maximum(stepped, x - eps), x + eps)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert not torch.allclose(ours, pgd(model, x, summed_ce(labels), **settings), atol=eps / 10)


def moments(model: nn.Sequential, x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of what BatchNorm in ``batchnorm_net`` sees, per channel."""
    maps = model[0](x).detach().transpose(0, 1).flatten(1)
    return maps.mean(1), maps.var(1)


@pytest.mark.parametrize("momentum", [0.25, 1.0])
def test_running_statistics_move_by_the_momentum_given(momentum: float) -> None:
    model, x = trained_net(), torch.rand(6, 3, 8, 8)
    norm = model[1]
    old, new = (norm.running_mean.clone(), norm.running_var.clone()), moments(model, x)
    with batch_norm_momentum(model, momentum):
        model(x)
    for got, was, now in zip((norm.running_mean, norm.running_var), old, new, strict=True):
        torch.testing.assert_close(got, (1 - momentum) * was + momentum * now)
    assert norm.momentum == 0.1


def test_contexts_nest() -> None:
    model = trained_net()
    model[1].eval()
    before = snapshot(model)
    with batch_norm_momentum(model, 1.0), frozen_eval(model, batch_norm="batch"):
        inside = snapshot(model)
        with batch_statistics(model), frozen_eval(model), batch_norm_momentum(model, 0.5):
            model(torch.rand(6, 3, 8, 8))
        assert_same(snapshot(model), inside)
    assert_unchanged(model, before)


def test_shared_parameters_and_modules_are_restored() -> None:
    shared = nn.Linear(4, 4)
    shared.weight.requires_grad_(False)
    model = nn.Sequential(shared, nn.BatchNorm1d(4).eval(), shared)
    before = snapshot(model)
    with frozen_eval(model):
        pass
    assert_unchanged(model, before)


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


def test_pgd_attacks_the_model_in_eval_mode_and_under_no_grad() -> None:
    model = batchnorm_net().train()
    x, labels = torch.rand(6, 3, 8, 8), torch.randint(4, (6,))
    settings = {"eps": 0.1, "step_size": 0.05, "steps": 3, "start": x}
    with torch.no_grad():
        from_training = pgd(model, x, summed_ce(labels), **settings)
        assert not torch.is_grad_enabled()
    assert torch.equal(from_training, pgd(model.eval(), x, summed_ce(labels), **settings))

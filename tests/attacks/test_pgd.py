"""PGD finds a linear model's exact robust accuracy, agrees with foolbox image by image, and refuses wrong arguments."""

import warnings
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from dkl.attacks import pgd
from dkl.attacks.pgd import Norm
from tests.attacks.common import smooth_net, summed_ce
from tests.attacks.test_projection import inside

NORMS = pytest.mark.parametrize("norm", ["linf", "l2"])
EPS = {"linf": 0.05, "l2": 0.15}
PIXELS = 12


def linear_model(classes: int) -> nn.Linear:
    return nn.Linear(PIXELS, classes, dtype=torch.float64)


def images(model: nn.Module, count: int = 200) -> tuple[Tensor, Tensor]:
    """Images in [0.3, 0.7], so that no ball reaches 0 or 1, and labels that are correct for most of them."""
    x = 0.3 + 0.4 * torch.rand(count, PIXELS, dtype=torch.float64)
    labels = model(x).argmax(1)
    wrong = torch.rand(count) < 0.1
    return x, torch.where(wrong, (labels + 1) % model(x).shape[1], labels)


def exact_margins(model: nn.Linear, x: Tensor, labels: Tensor, eps: float, norm: str) -> Tensor:
    """Smallest lead of the true logit over any other in the whole ball: lead − eps · dual norm of the weights' gap."""
    margins = torch.full((len(x),), float("inf"), dtype=torch.float64)
    for i, (image, label) in enumerate(zip(x, labels.tolist(), strict=True)):
        for other in range(len(model.weight)):
            if other != label:
                gap = (model.weight[label] - model.weight[other]).detach()
                lead = gap @ image + (model.bias[label] - model.bias[other]).detach()
                dual = gap.abs().sum() if norm == "linf" else gap.square().sum().sqrt()
                margins[i] = min(margins[i], lead - eps * dual)
    return margins


def assert_worth_testing(margins: Tensor, model: nn.Module, x: Tensor, labels: Tensor) -> None:
    """The attack must matter and no image may be a tie that rounding decides."""
    robust, clean = (margins > 0).double().mean(), (model(x).argmax(1) == labels).double().mean()
    assert 0.1 < robust < clean - 0.1
    assert margins.abs().min() > 1e-9


@NORMS
@pytest.mark.parametrize("random_start", [False, True])
def test_binary_linear_model_robust_accuracy_is_exact(norm: Norm, random_start: bool) -> None:
    model, eps = linear_model(2), EPS[norm]
    x, labels = images(model)
    margins = exact_margins(model, x, labels, eps, norm)
    assert_worth_testing(margins, model, x, labels)
    start = None if random_start else x
    adversarial = pgd(model, x, summed_ce(labels), eps=eps, step_size=eps, steps=100, norm=norm, start=start)
    assert inside(adversarial, x, eps, norm)
    leads = (
        model(adversarial).gather(1, labels[:, None])[:, 0] - model(adversarial).gather(1, 1 - labels[:, None])[:, 0]
    )
    torch.testing.assert_close(leads.detach(), margins, rtol=0, atol=1e-5)
    assert torch.equal(model(adversarial).argmax(1) == labels, margins > 0)


@NORMS
def test_multiclass_linear_model_robust_accuracy_is_exact(norm: Norm) -> None:
    # the lead over one class is linear, so each targeted attack is exact, and the worst of them is the answer
    model, eps, classes = linear_model(5), EPS[norm], 5
    x, labels = images(model)
    margins = exact_margins(model, x, labels, eps, norm)
    assert_worth_testing(margins, model, x, labels)
    robust = torch.ones(len(x), dtype=torch.bool)
    for target in range(classes):

        def lead(logits: Tensor, target: int = target) -> Tensor:
            return (logits[:, target] - logits.gather(1, labels[:, None])[:, 0]).sum()

        adversarial = pgd(model, x, lead, eps=eps, step_size=eps, steps=5, norm=norm, start=x)
        robust &= model(adversarial).argmax(1) == labels
    assert torch.equal(robust, margins > 0)
    untargeted = pgd(model, x, summed_ce(labels), eps=eps, step_size=eps / 4, steps=20, norm=norm)
    broken = model(untargeted).argmax(1) != labels
    assert not (broken & robust).any()  # no attack inside the ball beats the exact answer
    assert broken.double().mean() > 0.5 * (~robust).double().mean()


@NORMS
def test_images_of_a_batch_are_attacked_apart(norm: Norm) -> None:
    model = smooth_net().double()
    x, labels = torch.rand(5, 3, 8, 8, dtype=torch.float64), torch.tensor([0, 1, 2, 3, 4])
    settings = {"eps": EPS[norm], "step_size": EPS[norm] / 3, "steps": 5, "norm": norm}
    together = pgd(model, x, summed_ce(labels), start=x, **settings)
    for i in range(5):
        alone = pgd(model, x[i : i + 1], summed_ce(labels[i : i + 1]), start=x[i : i + 1], **settings)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=0, atol=1e-9)


@NORMS
def test_every_result_lies_in_the_ball_and_raises_the_objective(norm: Norm) -> None:
    model = smooth_net()
    x, labels = torch.rand(8, 3, 8, 8).round(decimals=1), torch.randint(5, (8,))
    adversarial = pgd(model, x, summed_ce(labels), eps=EPS[norm], step_size=EPS[norm] / 2, steps=4, norm=norm)
    assert inside(adversarial, x, EPS[norm], norm, slack=1e-6)
    assert summed_ce(labels)(model(adversarial)) > summed_ce(labels)(model(x)) + 0.01


@NORMS
def test_the_generator_decides_the_result(norm: Norm) -> None:
    model, x, labels = smooth_net(), torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 3])
    settings = {"eps": EPS[norm], "step_size": EPS[norm] / 5, "steps": 2, "norm": norm}
    first, again, other = (
        pgd(model, x, summed_ce(labels), generator=torch.Generator().manual_seed(s), **settings) for s in (5, 5, 6)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@NORMS
def test_a_flat_objective_gives_no_nan(norm: Norm) -> None:
    x = torch.rand(3, 3, 8, 8)
    result = pgd(smooth_net(), x, lambda logits: 0 * logits.sum(), eps=0.1, step_size=0.1, steps=2, norm=norm, start=x)
    torch.testing.assert_close(result, x, rtol=0, atol=1e-7)


@pytest.fixture(scope="module")
def foolbox() -> ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # foolbox imports names that SciPy deprecates
        return pytest.importorskip("foolbox")


@NORMS
@pytest.mark.parametrize("steps", [1, 7])
def test_the_same_images_as_foolbox(foolbox: ModuleType, norm: Norm, steps: int) -> None:
    model, eps = smooth_net(), {"linf": 8 / 255, "l2": 0.5}[norm]
    x, labels = torch.rand(16, 3, 8, 8), torch.randint(5, (16,))
    if norm == "linf":
        x[:, 0] = x[:, 0].round()  # a third of the pixels on the border, so that clamping acts
    else:
        x = 0.4 + 0.2 * x  # foolbox clamps after pulling into the ball, we before, as TRADES does
    name = {"linf": "LinfProjectedGradientDescentAttack", "l2": "L2ProjectedGradientDescentAttack"}[norm]
    attack = getattr(foolbox.attacks, name)(abs_stepsize=eps / 3, steps=steps, random_start=False)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    theirs = attack.run(wrapped, x, foolbox.criteria.Misclassification(labels), epsilon=eps)
    ours = pgd(model, x, summed_ce(labels), eps=eps, step_size=eps / 3, steps=steps, norm=norm, start=x)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    assert (ours - x).flatten(1).norm(dim=1).min() > 0.1 * eps
    assert ((ours == 0) | (ours == 1)).any() == (norm == "linf")


def test_l2_is_trades() -> None:
    # its own way: SGD on delta with unit-norm gradients at 2 eps / steps, delta clamped, then renormed
    steps, eps = 6, 0.8
    model, x = smooth_net().double(), torch.rand(6, 3, 8, 8, dtype=torch.float64).round(decimals=1)
    labels = torch.arange(6) % 5
    start = x + 0.001 * torch.randn(x.shape, dtype=x.dtype)
    delta = (start - x).clone().requires_grad_()
    optimizer = torch.optim.SGD([delta], lr=2 * eps / steps)
    for _ in range(steps):
        optimizer.zero_grad()
        (-summed_ce(labels)(model(x + delta))).backward()
        for gradient in delta.grad:
            gradient /= gradient.norm()
        optimizer.step()
        with torch.no_grad():
            delta.copy_((x + delta).clamp(0, 1) - x)
            delta.renorm_(p=2, dim=0, maxnorm=eps)
    ours = pgd(model, x, summed_ce(labels), eps=eps, step_size=2 * eps / steps, steps=steps, norm="l2", start=start)
    torch.testing.assert_close(ours, (x + delta).detach(), rtol=0, atol=1e-6)

"""Attacks may search on a faster network; the evaluated network alone decides what is misclassified."""

import dataclasses
import shutil

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.utils import counters

from dkl.attacks.autoattack import task
from dkl.attacks.autoattack.classifier import search_model
from dkl.errors import UserError
from dkl.evaluation import autoattack
from dkl.models import create_model
from dkl.reporting.boards.notes import evaluation_notes
from dkl.reporting.grouping import attacks_label
from tests.evaluation.common import some_digits, trained


def network() -> nn.Module:
    """A residual network whose BatchNorm moves and scales."""
    torch.manual_seed(0)
    model = create_model("cifar_resnet8", 10, in_chans=1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    return model.eval()


@pytest.mark.parametrize(
    "search",
    [{"channels_last": True}, {"fold_batch_norm": True}, {"precision": "bf16"}, {"compile": True}],
    ids=str,
)
def test_logits_and_gradients_are_those_of_the_network(
    search: dict[str, bool | str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def compiled(model: nn.Module, dynamic: bool) -> nn.Module:
        model.register_forward_hook(lambda module, inputs, output: seen.append(len(output)))
        return model

    monkeypatch.setattr(torch, "compile", compiled)
    model = network()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    fast = search_model(model, search, 8)
    x = torch.rand(5, 1, 8, 8)
    logits, gradients = [], []
    for each in (model, fast):
        leaf = x.clone().requires_grad_()
        logits.append(each(leaf))
        gradients += torch.autograd.grad(logits[-1][:, 0].sum(), leaf)
    tolerance = 0.2 if "precision" in search else 1e-5
    for found, expected in ((logits[1], logits[0]), (gradients[1], gradients[0])):
        assert (found - expected).abs().max() <= tolerance * expected.abs().max()
    assert gradients[1].is_contiguous()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())
    if "fold_batch_norm" in search:
        assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    if "compile" in search:
        for count in range(1, 9):
            assert fast(torch.rand(count, 1, 8, 8)).shape == (count, 10)
        assert set(seen) == {2, 4, 8}, "every new batch size would be compiled"


def test_only_the_evaluated_network_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = some_digits(20)

    class Wrong(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return -trained()(x)

    monkeypatch.setattr(task, "search_model", lambda *settings: Wrong())
    result = autoattack(trained(), images, labels, eps=0.0, attacks=["pgd-2"], channels_last=True)
    assert torch.equal(result.robust, result.flags["clean"])
    assert result.robust.any()


def test_a_faster_search_is_recorded_and_low_precision_is_not_autoattack() -> None:
    images, labels = some_digits(10)
    options = {"eps": 0.01, "attacks": ["apgd-ce"], "channels_last": True, "precision": "bf16"}
    record = autoattack(trained(), images, labels, **options).record(method="m", dataset="d", architecture="a")
    assert record.search == {"channels_last": True, "precision": "bf16"}
    assert attacks_label(record) == "apgd-ce in bf16 (not AutoAttack)"
    assert any("channels_last and precision=bf16" in note for note in evaluation_notes([record]))
    four = ["apgd-ce", "apgd-t", "fab-t", "square"]
    full = dataclasses.replace(record, attacks=four, per_attack=dict.fromkeys(four, record.per_attack["apgd-ce"]))
    assert not full.is_autoattack
    assert dataclasses.replace(full, search={"channels_last": True}).is_autoattack


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
@pytest.mark.filterwarnings("ignore")  # torch's compiler looks at many objects that warn
def test_torch_compiles_the_network_that_is_searched() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    images = torch.rand(4, 1, 8, 8)
    labels = model(images).argmax(1)
    options = {"eps": 0.05, "attacks": ["pgd-3"], "batch_size": 4}
    counters.clear()
    compiled = autoattack(model, images, labels, compile=True, **options)
    assert counters["stats"]["unique_graphs"] > 0
    assert torch.equal(compiled.robust, autoattack(model, images, labels, **options).robust)
    assert 0 < compiled.robust.sum() < 4


def test_a_network_that_cannot_be_traced_is_refused() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1) if x.sum() > 0 else -x.flatten(1)

    with pytest.raises(UserError, match="fold_batch_norm=true cannot trace"):
        search_model(Branching(), {"fold_batch_norm": True}, 4)
    with pytest.raises(UserError, match="precision=float16 must be"):
        autoattack(trained(), *some_digits(1), eps=0.1, precision="float16")

"""The files of examples/: their losses are those of dkl.losses, and they train the networks of ``dkl train``."""

import runpy
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from dkl.assembly import train
from dkl.data import digits
from dkl.losses import IKL
from dkl.models import create_model
from dkl.storage import checkpoint
from tests.docs.pages import ROOT
from tests.training.common import make_config

EXAMPLES = ROOT / "examples"
TINY = {"seed": 3, "epochs": 3, "batch_size": 32}


def example(name: str) -> ModuleType:
    """The file ``name``.py of examples/ as a module."""
    module = ModuleType(name)
    vars(module).update(runpy.run_path(str(EXAMPLES / f"{name}.py")))
    return module


def network(name: str) -> nn.Module:
    """The network as ``dkl train`` makes it, in double precision."""
    torch.manual_seed(TINY["seed"])
    return create_model(name, num_classes=10, in_chans=1).double()


def trained(folder: Path, *overrides: str) -> dict[str, dict[str, torch.Tensor]]:
    """The checkpoint of `dkl train` with ``overrides`` on the digits of ``TINY``, in double precision."""
    fixed = ("trainer.precision=float64", "trainer.channels_last=false", f"seed={TINY['seed']}")
    run = train(make_config(folder, *overrides, *fixed, "trainer.batch_size=32", epochs=TINY["epochs"]))
    return checkpoint.read(run / "checkpoint.pt")


def assert_close(model: nn.Module, state: dict[str, torch.Tensor]) -> None:
    own = model.state_dict()
    assert own.keys() == state.keys()
    for name, value in state.items():
        torch.testing.assert_close(own[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["ikl_at", "ikl_kd"])
def test_it_is_one_file_to_copy(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 150
    assert "import dkl" not in text
    assert "from dkl" not in text


def test_the_losses_are_those_of_the_package() -> None:
    m, n = torch.randn(2, 8, 10, dtype=torch.float64).unbind()
    weights = torch.rand(8, 10, dtype=torch.float64).softmax(1)
    torch.testing.assert_close(
        example("ikl_at").ikl(m, n, weights, wmse=20.0, ce=5.0), IKL(wmse_weight=20, ce_weight=5)(m, n, weights=weights)
    )
    distill = IKL(wmse_weight=8, ce_weight=1, ce_temperature=4, sample_temperature=100, weighting="sample")
    torch.testing.assert_close(example("ikl_kd").ikl(m, n, wmse=8.0, ce=1.0), distill(m, n))


@pytest.mark.parametrize("name", ["small_cnn", "cifar_resnet8"])
def test_adversarial_training_gives_the_weights_of_dkl_train(name: str, tmp_path: Path) -> None:
    overrides = ("recipe=official", f"model={name}", "data=digits", "trainer.batch_norm_share=null")
    state = trained(tmp_path, *overrides, "optimizer.lr=0.05", "task.awp.start=2")
    at, model, images = example("ikl_at"), network(name), digits()[0].balanced(96)
    args = Namespace(**at.SETTINGS | TINY | {"lr": 0.05, "awp_start": 2})
    average = at.train(model, images.images, images.labels, 0.1, args)
    assert_close(model, state["model"])
    assert_close(average, state["average"])


def test_distillation_gives_the_weights_of_dkl_train(tmp_path: Path) -> None:
    kd, images = example("ikl_kd"), digits()[0].balanced(96)
    args = Namespace(**kd.SETTINGS | TINY | {"lr": 0.05})
    teacher, student = network("cifar_resnet14"), network("cifar_resnet8")
    kd.train(teacher, images.images, images.labels, args)
    torch.save(teacher.state_dict(), tmp_path / "teacher.pt")
    given = (f"task.teacher.checkpoint={tmp_path / 'teacher.pt'}", "task.teacher.name=cifar_resnet14")
    plain = ("data=digits", "data.mean=null", "data.std=null")
    state = trained(tmp_path, "recipe=kd_cifar", *plain, "model=cifar_resnet8", *given)
    kd.train(student, images.images, images.labels, args, teacher)
    assert_close(student, state["model"])


@pytest.mark.parametrize(("name", "printed"), [("ikl_at", "PGD-20"), ("ikl_kd", "distilled")])
def test_the_program_runs(
    name: str, printed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [name, "--epochs", "1"])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert printed in capsys.readouterr().out.splitlines()[-1]

"""A loss or a task in a file of its own trains; one without the contract is refused before any work, in one line."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig
from torch import nn

from dkl.assembly import build_model, build_task, preflight
from dkl.config import compose_config
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import ClassPrior
from dkl.tasks import Progress, Task
from tests.tasks.common import make_net

LOSS_FILE = """
from dataclasses import dataclass

class LogitMSE:
    weighting = "none"

    def __call__(self, natural_logits, adversarial_logits):
        return (natural_logits - adversarial_logits).square().mean()

@dataclass(frozen=True)
class Weighted:
    factor: float = 2.0
    weighting: str = "class"

    def __call__(self, natural_logits, adversarial_logits, *, weights):
        return self.factor * (weights * (natural_logits - adversarial_logits).square()).sum(-1).mean()

class NoWeighting:
    def __call__(self, natural_logits, adversarial_logits):
        return (natural_logits - adversarial_logits).square().mean()

class NotATask:
    def __init__(self, model):
        self.model = model

def settings_only(**settings):
    return settings
"""

TASK_FILE = """
from contextlib import contextmanager

import torch.nn.functional as F

from dkl.tasks import Output, Task

class Supervised(Task):
    def __init__(self, model):
        self.model = model

    @contextmanager
    def step(self, batch, progress):
        yield Output(F.cross_entropy(self.model(batch.images), batch.labels))

class NoStep(Task):
    def __init__(self, model):
        self.model = model

class NoContext(Supervised):
    def step(self, batch, progress):
        yield

class NoModel(Supervised):
    def __init__(self, model):
        pass
"""

SMALL = ["model=small_cnn", "attack.steps=1"]
OWN_TASK = ["hydra.searchpath=[file://FOLDER]", "loss=none", "attack=none", "model=small_cnn"]


@pytest.fixture
def own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two modules outside the package, and a YAML file for each task in them."""
    (tmp_path / "own_losses.py").write_text(LOSS_FILE)
    (tmp_path / "own_tasks.py").write_text(TASK_FILE)
    (tmp_path / "task").mkdir()
    for name in (
        "own_tasks.Supervised",
        "own_tasks.NoStep",
        "own_tasks.NoModel",
        "own_tasks.NoContext",
        "own_losses.NotATask",
    ):
        (tmp_path / "task" / f"{name.partition('.')[2]}.yaml").write_text(f"_target_: {name}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def compose(overrides: list[str], folder: Path) -> DictConfig:
    return compose_config("train", [override.replace("FOLDER", str(folder)) for override in overrides])


def step(overrides: list[str], folder: Path) -> Task:
    """A composed task after one step on digits."""
    cfg = compose(overrides, folder)
    preflight(cfg)
    task = build_task(cfg.task, build_model(cfg.model))
    with task.step(Batch(torch.rand(4, 1, 8, 8), torch.arange(4)), Progress(1, 2)) as out:
        out.loss.backward()
    assert out.loss.isfinite()
    task.end_epoch()
    return task


def own_loss(name: str) -> list[str]:
    return [*SMALL, f"loss._target_=own_losses.{name}", "~loss.wmse_weight", "~loss.ce_weight", "~loss.weighting"]


def test_a_loss_of_your_own_is_one_class(own_files: Path) -> None:
    for name in ("LogitMSE", "Weighted"):
        task = step(own_loss(name), own_files)
        assert all(parameter.grad is not None for parameter in task.model.parameters())


def test_a_task_of_your_own_is_one_class_with_defaults(own_files: Path) -> None:
    task = step([*OWN_TASK, "task=Supervised"], own_files)
    assert dict(task.named_parameters()).keys() == dict(task.model.named_parameters()).keys()
    assert task.state_dict() == {}
    task.load_state_dict({})
    task.before_training([])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (own_loss("NoWeighting"), r"NoWeighting has no attribute weighting, which must be one of class, sample, label"),
        (own_loss("settings_only"), r"dict is not callable|adversarial training needs a loss"),
        (
            ["model=small_cnn", "attack.steps=1", "attack.objective._target_=own_losses.NoWeighting"],
            "NoWeighting has no attribute weighting",
        ),
        ([*OWN_TASK, "task=NotATask"], "NotATask is not a task: derive it from dkl.tasks.Task"),
        ([*OWN_TASK, "task=NoStep"], "abstract method '?step"),
        ([*OWN_TASK, "task=NoModel"], "NoModel has no model: set self.model"),
        ([*OWN_TASK, "task=NoContext"], "NoContext.step returns a generator: decorate it with @contextmanager"),
    ],
    ids=["loss", "no loss", "objective", "no task", "no step", "no model", "no context"],
)
def test_what_is_missing_is_reported_in_one_line(own_files: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        preflight(compose(overrides, own_files))
    assert "\n" not in str(found.value)


class WithPrior(Task):
    """A task that keeps a class prior."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.prior = model, ClassPrior(3)

    def step(self, batch: Batch, progress: Progress) -> None:  # type: ignore[override]
        raise NotImplementedError


def test_the_class_prior_of_a_task_ends_its_epochs_and_is_saved() -> None:
    task, resumed = WithPrior(make_net()), WithPrior(make_net())
    task.prior.observe(torch.eye(3), torch.arange(3), 1.0)
    resumed.load_state_dict(task.state_dict())
    for one in (task, resumed):
        one.end_epoch()
        torch.testing.assert_close(one.prior.table, torch.eye(3).softmax(-1))
        assert not one.prior.sums.any()

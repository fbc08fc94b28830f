"""A part of your own that lacks something is refused in one line before the run starts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from dkl.assembly import assemble, load_data, preflight
from dkl.config import compose_config, run_folder
from dkl.data import Batch
from dkl.errors import UserError
from dkl.tasks import Progress, Task
from tests.training.common import make_config


class Flat(nn.Module):
    """A network whose constructor takes neither ``name`` nor ``num_classes``."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1))


class Pair(nn.Module):
    """A network that returns its features too."""

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        return images.flatten(1)[:, :10], images


class Masked(nn.Module):
    """A network that needs more than images."""

    def forward(self, images: Tensor, mask: Tensor) -> Tensor:
        return (images * mask).flatten(1)[:, :10]


class Plain:
    """Not a network, not a loss, not a task."""

    def __init__(self, **arguments: object) -> None:
        self.arguments = arguments


class Projected(nn.Module):
    """A loss with weights of its own."""

    weighting = "none"

    def __init__(self) -> None:
        super().__init__()
        self.projection, self.frozen = nn.Linear(10, 10), nn.Linear(10, 10).requires_grad_(False)

    def forward(self, natural_logits: Tensor, adversarial_logits: Tensor) -> Tensor:
        return (self.projection(natural_logits) - self.frozen(adversarial_logits)).square().mean()


class Headed(Task):
    """A task with a head that no optimizer gets, and one that it trains itself."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.head, self.critic = model, nn.Linear(10, 10, bias=False), nn.Linear(10, 1)
        self.adam = torch.optim.Adam(self.critic.parameters())

    def step(self, batch: Batch, progress: Progress) -> None:  # type: ignore[override]
        raise NotImplementedError


def one_image() -> Tensor:
    return torch.zeros(1, 1, 8, 8)


def with_target(key: str, name: str, **arguments: object) -> DictConfig:
    """The default run with ``key`` replaced by the class ``name`` of this file."""
    cfg = compose_config("train", [])
    OmegaConf.update(cfg, key, {"_target_": f"{__name__}.{name}", **arguments}, merge=False)
    return cfg


@pytest.mark.parametrize(
    ("key", "name", "message"),
    [
        ("model", "Plain", r"^model: \S+Plain must return a torch\S+Module, not a Plain$"),
        ("loss", "Plain", r"^loss: Plain is not callable"),
        ("task", "Plain", r"^task: Plain is not a task"),
        ("schedule", "Plain", r"^schedule: \S+Plain must return a \S+Schedule, not a Plain$"),
        ("model", "Pair", r"^Pair returns a tuple: its forward must return one tensor of logits$"),
        ("model", "Masked", r"^Masked does not take images .* missing 1 required positional argument: 'mask'"),
        ("model", "Nowhere", r"^model: .*Nowhere to import: check _target_ and PYTHONPATH$"),
    ],
)
def test_a_part_without_its_interface_is_refused_in_one_line(key: str, name: str, message: str) -> None:
    cfg = with_target(key, name, **({"loss": None, "attack": None} if key == "task" else {}))
    with pytest.raises(UserError, match=message) as caught:
        preflight(cfg)
    assert "\n" not in str(caught.value)


def test_a_source_must_return_two_sets_of_images() -> None:
    with pytest.raises(UserError, match=r"^data\.source: \S+one_image must return a tuple, not a Tensor$"):
        load_data(with_target("data.source", "one_image").data)


def test_a_model_without_a_name_is_named_after_its_class(tmp_path: Path) -> None:
    cfg = with_target("model", "Flat")
    cfg.paths.results = str(tmp_path)
    preflight(cfg)
    assert run_folder(cfg).name.startswith("digits-Flat-ikl-s0-")


def test_assemble_builds_a_run_without_touching_its_folder(tmp_path: Path) -> None:
    run = assemble(make_config(tmp_path, "selection.holdout=8", "selection.every=1"))
    assert (len(run.batches), run.label, run.peak_lr) == (-(-88 // 32), "IKL-AT", 0.05)
    assert run.held_out is not None
    assert run.about.name == run.folder.name
    assert not run.folder.exists()


def test_a_run_that_is_unusual_but_possible_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assemble(make_config(tmp_path))
    assemble(compose_config("train", ["budget=smoke", f"paths.results={tmp_path}"]))
    assert "warning" not in capsys.readouterr().err
    np.savez(tmp_path / "one.npz", image=np.zeros((40, 8, 8, 1), np.uint8), label=np.arange(40) % 4)
    files = [f"data.source.{split}={tmp_path / 'one.npz'}" for split in ("train", "test")]
    own = ["data=npz", "data.num_classes=6", "data.shape=[1,8,8]", "data.train_size=null", "data.test_size=null"]
    assemble(make_config(tmp_path, *own, *files, "optimizer.no_decay=[bias,nothing]", "optimizer.faster=[head]"))
    assert capsys.readouterr().err.splitlines() == [
        "warning: 2 of data.num_classes=6 classes of npz have no training image",
        "warning: 40 of 40 test images are among the training images of npz (100.00 %), so accuracies may be too high",
        "warning: no parameter's name matches 'nothing' of optimizer.no_decay",
        "warning: no parameter's name matches optimizer.faster=[head]",
    ]


def test_an_attack_of_no_step_is_warned_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assemble(make_config(tmp_path, "attack.steps=0"))
    assert "warning: attack.steps=0 takes no step" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "name", "untrained"),
    [
        ("loss", "Projected", "loss.projection.weight, loss.projection.bias: yield them in named_parameters of Trades"),
        ("task", "Headed", "head.weight: yield them in named_parameters of Headed"),
    ],
)
def test_parameters_that_nothing_trains_are_named(
    key: str, name: str, untrained: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cfg = with_target(key, name)
    cfg.paths.results = str(tmp_path)
    assemble(cfg)
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith(f"warning: nothing trains {untrained}")

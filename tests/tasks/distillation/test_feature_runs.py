"""Runs of feature distillation: the step, what is trained along with the student, and mistakes before any work."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig

from dkl.assembly import build_task, preflight, train
from dkl.config import compose_config, run_folder
from dkl.data import Batch
from dkl.errors import UserError
from dkl.models import create_model, create_teacher
from dkl.models.features import forward_with_features
from dkl.tasks import FeatureDistillation, Progress
from dkl.tasks.distillation.features import AT, FitNet
from tests.tasks.common import interrupted
from tests.tasks.distillation.common import features, needs_torchdistill
from tests.training.common import assert_equal, comparable

METHODS = ("at", "fitnet", "reviewkd", "rkd")
CACHED = ["task.cache_teacher=true", "data.augment.crop_padding=0", "data.augment.flip=false"]


def make(method: str, teacher: Path, *overrides: str, student: str = "cifar_resnet8") -> DictConfig:
    """A run of seconds on artificial images with the weights in ``teacher``."""
    given = [f"task.teacher.name={teacher.stem}", f"task.teacher.checkpoint={teacher}", f"model={student}"]
    sizes = ["data=cifar100", "recipe=kd_cifar", "budget=smoke", "trainer.threads=1", f"task={method}"]
    return compose_config("train", [*sizes, *given, *overrides])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A file of the weights of an untrained network, by its name."""
    folder = tmp_path_factory.mktemp("teachers")

    def write(name: str) -> Path:
        torch.save(create_model(name, 100).state_dict(), folder / f"{name}.pt")
        return folder / f"{name}.pt"

    return write


@needs_torchdistill
def test_a_step_is_cross_entropy_and_the_warm_loss(weights: Callable[[str], Path]) -> None:
    teacher = create_teacher("cifar_resnet14", 100, checkpoint=str(weights("cifar_resnet14"))).double()
    student = create_model("cifar_resnet8", 100).double().eval()
    settings: dict[str, Any] = {"num_classes": 100, "ce_weight": 0.5, "warmup_epochs": 4}
    task = FeatureDistillation(student, teacher, AT(weight=10.0), shape=[3, 16, 16], **settings)
    batch = Batch(torch.rand(3, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 5, 99]))
    (logits, mine), (_, theirs) = (forward_with_features(network, batch.images) for network in (student, teacher))
    distance, losses = AT(weight=10.0), []
    distance.connect(mine, theirs)
    for epoch in (1, 4, 9):
        with task.step(batch, Progress(epoch, 10)) as out:
            losses.append(out.loss.item())
            assert out.sums["natural_correct"] == (logits.argmax(1) == batch.labels).sum()
    entropy, far = F.cross_entropy(logits, batch.labels).item(), distance(mine, theirs).item()
    assert losses == pytest.approx([0.5 * entropy + warm * far for warm in (0.25, 1, 1)], rel=1e-12)


@needs_torchdistill
@pytest.mark.parametrize("method", ["fitnet", "reviewkd"])
def test_what_is_trained_along_is_kept_and_a_run_continues_as_if_it_had_not_stopped(
    method: str, weights: Callable[[str], Path], tmp_path: Path
) -> None:
    teacher = weights("cifar_resnet14")
    broken = make(method, teacher, "averaging=ema", f"paths.results={tmp_path / 'broken'}")
    with interrupted(FeatureDistillation):
        train(broken)
    first = comparable(run_folder(broken))
    assert f"-{method}-s0-" in run_folder(broken).name
    resumed = comparable(train(broken))
    whole = comparable(train(make(method, teacher, "averaging=ema", f"paths.results={tmp_path / 'whole'}")))
    assert_equal(resumed, whole)
    learned = whole["task"]["loss"]
    trained = [key for key in learned if key.endswith(("weight", "bias"))]
    assert trained
    assert not any(torch.equal(first["task"]["loss"][key], learned[key]) for key in trained)
    plain = create_model("cifar_resnet8", 100).state_dict().keys()
    assert whole["model"].keys() == whole["average"].keys() == plain  # nothing of the loss


@needs_torchdistill
@pytest.mark.parametrize("method", METHODS)
def test_the_optimizer_has_student_and_loss_and_the_teacher_stays(method: str, weights: Callable[[str], Path]) -> None:
    cfg = make(method, weights("cifar_resnet14"))
    model = create_model("cifar_resnet8", 100)
    task = build_task(cfg.task, model)
    assert isinstance(task, FeatureDistillation)
    names = [name for name, _ in task.named_parameters()]
    assert {name for name in names if not name.startswith("loss.")} == {name for name, _ in model.named_parameters()}
    assert bool([name for name in names if name.startswith("loss.")]) == (method in ("fitnet", "reviewkd"))
    before = {key: tensor.clone() for key, tensor in task.teacher.state_dict().items()}
    task.model.train()
    batch = Batch(torch.rand(4, 3, 32, 32), torch.arange(4))
    with task.step(batch, Progress(5, 10)) as out:
        out.loss.backward()
    assert all(parameter.grad is not None for _, parameter in task.named_parameters())
    assert not task.teacher.training
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in task.teacher.parameters())
    assert_equal(dict(task.teacher.state_dict()), before)


@pytest.mark.parametrize("method", METHODS)
def test_without_torchdistill_the_fix_is_named_before_any_work(
    method: str, weights: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name="torchdistill")

    monkeypatch.setattr("dkl.tasks.distillation.features.import_module", missing)
    cfg = make(method, weights("cifar_resnet14"), f"paths.results={tmp_path}")
    with pytest.raises(UserError, match=r"torchdistill is not installed: pip install 'dkl\[features\]'"):
        train(cfg)
    assert not list(tmp_path.iterdir())


@needs_torchdistill
@pytest.mark.parametrize(
    ("method", "student", "changes", "message"),
    [
        ("at", "small_cnn", [], r"student has 0 stages whose features are known and the teacher 3: .* task=rkd"),
        ("fitnet", "cifar_vgg8", [], "student has 4 stages whose features are known and the teacher 3"),
        ("reviewkd", "cifar_mobilenetv2", [], "student has 4 stages"),
        ("reviewkd", "cifar_shufflev1", ["task.loss.student_before=true"], "before activation of .* are not known"),
        ("fitnet", "cifar_resnet8", ["task.loss.stage=4"], r"task\.loss\.stage=4 must be one of the 3 stages"),
        ("at", "cifar_resnet8", CACHED, r"too large to cache: set task\.cache_teacher=false"),
    ],
)
def test_mistakes_are_found_before_any_work(
    method: str, student: str, changes: list[str], message: str, weights: Callable[[str], Path]
) -> None:
    with pytest.raises(UserError, match=message):
        preflight(make(method, weights("cifar_resnet14"), *changes, student=student))


@needs_torchdistill
def test_sizes_that_no_regressor_takes_are_refused_and_relations_ask_for_none(weights: Callable[[str], Path]) -> None:
    small, large = features((4, 2), (4, 2), pooled=4), features((4, 8), (4, 8), pooled=4)
    with pytest.raises(UserError, match=r"stage 2 is 2 pixels wide and the teacher's 8: set task\.loss\.stage"):
        FitNet().connect(small, large)
    preflight(make("rkd", weights("cifar_resnet14"), student="small_cnn"))

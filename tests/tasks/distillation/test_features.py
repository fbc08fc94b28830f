"""Feature losses are their papers' formulas, written here without torchdistill; what they train along is part of a run.

FitNet, AT and RKD as RepDistiller has them, ReviewKD as its authors' code has it, in float64.
"""

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from dkl.assembly import build_task, preflight, train
from dkl.config import compose_config, run_folder
from dkl.data import Batch
from dkl.errors import UserError
from dkl.models import create_model, create_teacher
from dkl.models.features import Features, forward_with_features
from dkl.tasks import FeatureDistillation, Progress
from dkl.tasks.distillation.features import AT, RKD, FeatureLoss, FitNet, ReviewKD
from tests.tasks.common import interrupted
from tests.training.common import assert_equal, comparable

METHODS = ("at", "fitnet", "reviewkd", "rkd")
CACHED = ["task.cache_teacher=true", "data.augment.crop_padding=0", "data.augment.flip=false"]
needs_torchdistill = pytest.mark.skipif(
    find_spec("torchdistill") is None, reason="torchdistill is not installed: pip install 'dkl[features]'"
)


def features(*stages: tuple[int, int], pooled: int) -> Features:
    """Four images' random features in float64: (width, size) of each stage."""
    maps = [torch.randn(4, width, size, size, dtype=torch.float64) for width, size in stages]
    return Features(maps, torch.randn(4, pooled, dtype=torch.float64))


STUDENT = ((4, 8), (6, 4), (8, 2))
TEACHERS = {
    "as large": ((5, 8), (7, 4), (9, 2)),
    "larger": ((5, 16), (7, 8), (9, 4)),
    "smaller": ((5, 4), (7, 2), (9, 1)),
}


def pair_with(teacher: str) -> tuple[Features, Features]:
    """The student's features and those of a teacher with stages of other sizes."""
    return features(*STUDENT, pooled=8), features(*TEACHERS[teacher], pooled=9)


def value(loss: FeatureLoss, pair: tuple[Features, Features]) -> float:
    loss.connect(*pair)
    return loss.double()(*pair).item()


def normalized(x: Tensor, bn: nn.BatchNorm2d) -> Tensor:
    """BatchNorm by the batch's own statistics."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
    return (x - mean) / (var + bn.eps).sqrt() * bn.weight.view(1, -1, 1, 1) + bn.bias.view(1, -1, 1, 1)


def huber(one: np.ndarray, other: np.ndarray) -> float:
    gap = np.abs(one - other)
    return float(np.where(gap < 1, gap**2 / 2, gap - 0.5).mean())


@needs_torchdistill
@pytest.mark.parametrize("teacher", TEACHERS)
def test_fitnet_is_the_mse_of_the_regressed_second_stage(teacher: str) -> None:
    pair = pair_with(teacher)
    loss = FitNet(weight=3.0)
    found = value(loss, pair)
    mine, theirs = pair[0].stages[1], pair[1].stages[1]
    convolution, bn = loss.regressor.conv, loss.regressor.bn
    weight, bias = convolution.weight, convolution.bias
    if theirs.shape[-1] == 4:
        expected = torch.einsum("bihw,oi->bohw", mine, weight[:, :, 0, 0]) + bias.view(1, -1, 1, 1)
    elif theirs.shape[-1] == 8:
        expected = F.conv_transpose2d(mine, weight, bias, stride=2, padding=1)
        assert weight.shape[-1] == 4
    else:
        expected = F.conv2d(mine, weight, bias, stride=2, padding=1)
        assert weight.shape[-1] == 3
    expected = normalized(expected, bn).clamp(min=0)
    assert found == pytest.approx(3 * (expected - theirs).square().mean().item(), rel=1e-12)


@needs_torchdistill
@pytest.mark.parametrize("teacher", TEACHERS)
def test_at_is_the_mse_of_normalized_attention(teacher: str) -> None:
    pair = pair_with(teacher)

    def attention(stage: Tensor, size: int) -> np.ndarray:
        array = stage.numpy()
        block = array.shape[-1] // size
        array = array.reshape(*array.shape[:2], size, block, size, block).mean((3, 5))
        flat = (array**2).mean(1).reshape(len(array), -1)
        return flat / np.linalg.norm(flat, axis=1, keepdims=True)

    expected = 0.0
    for mine, theirs in zip(*(one.stages for one in pair), strict=True):
        size = min(mine.shape[-1], theirs.shape[-1])
        expected += ((attention(mine, size) - attention(theirs, size)) ** 2).mean()
    assert value(AT(weight=7.0), pair) == pytest.approx(7 * expected, rel=1e-10)


@needs_torchdistill
def test_rkd_compares_all_distances_and_angles() -> None:
    def relations(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        count = range(len(points))
        distances = np.array([[np.linalg.norm(points[i] - points[j]) for j in count] for i in count])
        unit = [[(points[j] - points[i]) / (distances[i, j] or 1) for j in count] for i in count]
        angles = np.array([[[unit[i][j] @ unit[i][k] for k in count] for j in count] for i in count])
        return distances / distances[distances > 0].mean(), angles

    pair = pair_with("as large")
    (d_s, a_s), (d_t, a_t) = (relations(one.pooled.numpy()) for one in pair)
    expected = 25 * huber(d_s, d_t) + 50 * huber(a_s, a_t)
    assert value(RKD(), pair) == pytest.approx(expected, rel=1e-8)
    assert value(RKD(distance_weight=2.0, angle_weight=0.0), pair) == pytest.approx(2 * huber(d_s, d_t), rel=1e-8)


def fused(fusion: nn.Module, x: Tensor, carried: Tensor | None, size: int) -> tuple[Tensor, Tensor]:
    """The authors' ABF over the parameters of ``fusion``, its output of ``size`` and what it carries on."""
    convolutions = [module for module in fusion.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in fusion.modules() if isinstance(module, nn.BatchNorm2d)]
    first, third = convolutions[:2]
    x = normalized(torch.einsum("bihw,oi->bohw", x, first.weight[:, :, 0, 0]), norms[0])
    if carried is not None:
        attention = convolutions[2]
        both = torch.cat([x, larger(carried, x.shape[-1])], 1)
        weight = torch.einsum("bihw,oi->bohw", both, attention.weight[:, :, 0, 0]) + attention.bias.view(1, -1, 1, 1)
        gate = 1 / (1 + torch.exp(-weight))
        x = x * gate[:, :1] + larger(carried, x.shape[-1]) * gate[:, 1:]
    x = larger(x, size)
    return normalized(F.conv2d(x, third.weight, padding=1), norms[1]), x


def larger(x: Tensor, size: int) -> Tensor:
    """Every pixel repeated."""
    times = size // x.shape[-1]
    return x.repeat_interleave(times, 2).repeat_interleave(times, 3)


def context(one: Tensor, other: Tensor) -> float:
    """The hierarchical context loss: MSE of maps and of their means over 4, 2 and 1 parts a side, halving weights."""
    gap, size = (one - other).detach().numpy(), one.shape[-1]
    terms, weights = [(gap**2).mean()], [1.0]
    for parts in (part for part in (4, 2, 1) if part < size):
        block = size // parts
        means = gap.reshape(*gap.shape[:2], parts, block, parts, block).mean((3, 5))
        terms.append((means**2).mean())
        weights.append(weights[-1] / 2)
    return float(np.dot(terms, weights) / sum(weights))


@needs_torchdistill
@pytest.mark.parametrize("teacher", ["as large", "larger"])
def test_reviewkd_is_the_context_loss_of_fused_stages(teacher: str) -> None:
    pair = pair_with(teacher)
    loss = ReviewKD(weight=5.0)
    found = value(loss, pair)
    maps = [[*reversed(one.stages)] for one in pair]
    ends = [one.pooled[..., None, None] for one in pair]
    expected, carried = 0.0, None
    for fusion, mine, theirs in zip(loss.fusions, [ends[0], *maps[0]], [ends[1], *maps[1]], strict=True):
        output, carried = fused(fusion, mine, carried, theirs.shape[-1])
        expected += context(output, theirs)
    assert found == pytest.approx(5 * expected, rel=1e-10)
    assert all(fusion.conv1[0].out_channels == 8 for fusion in loss.fusions)  # as wide as what the classes see


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
        ("fitnet", "cifar_resnet8", ["task.loss.weight=-1"], r"task\.loss\.weight=-1 must be a number from 0"),
        (
            "rkd",
            "cifar_resnet8",
            ["task.loss.angle_weight=inf"],
            r"task\.loss\.angle_weight=inf must be a number from 0",
        ),
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

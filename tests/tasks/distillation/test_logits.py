"""Distillation by the shipped recipe equals the official step transcribed; the teacher is not touched.

Epochs are those that matter: 1 and 2 (uniform prior, then the teacher's), 19 and 20 (warm-up) and 151 (the rate falls).
"""

import copy
import io
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from rich.console import Console
from torch import Tensor, nn

from dkl.assembly import build_model, build_schedule, build_task, make_batches
from dkl.config import TrainConfig, compose_config, typed
from dkl.console import Bar
from dkl.data import Batch, Batches, Batching, Images
from dkl.errors import UserError
from dkl.losses import GKL, IKL, KD, WKD
from dkl.models import create_model, forward_with_features
from dkl.tasks import Distillation, Progress
from dkl.training.averaging import Average, Averaging
from dkl.training.loop import train_epoch
from dkl.training.optimizer import apply_schedule, make_optimizer
from tests.models.common import with_statistics
from tests.official.distillation import Trainer, dkd, ikl, kd
from tests.official.distillation_losses import linear_cka
from tests.tasks.common import CLASSES, make_batch, make_net

EPOCHS = (1, 2, 19, 20, 151)
SIZES = [
    *("data=cifar100", "data.num_classes=5", "data.shape=[3,16,16]", "model=cifar_resnet8", "recipe=kd_cifar"),
    *("trainer.batch_size=5", "trainer.precision=float64", "task.teacher.name=cifar_resnet14", "seed=3"),
]
IKL_V1 = partial(ikl, alpha=3.0, beta=12.0, temperature=4.0, t2=100.0, gi=False)
IKL_GI = partial(ikl, alpha=1.0, beta=8.0, temperature=4.0, t2=4.0, gi=True)
GKL_V2 = partial(ikl, alpha=1.0, beta=16.0, temperature=4.0, t2=4.0, gi=True, gamma=0.05)
GKL_OFF = partial(ikl, alpha=3.0, beta=20.0, temperature=4.0, t2=4.0, gi=False, gamma=0.3)

METHODS: dict[str, tuple[list[str], Any, dict[str, Any]]] = {
    "IKL, v1": (
        ["loss=ikl_kd", "loss.ce_weight=3", "loss.wmse_weight=12"],
        lambda s, t, y, prior: IKL_V1(s, t, prior),
        {},
    ),
    "IKL, prior": (["loss=ikl_kd", "loss.weighting=class"], lambda s, t, y, prior: IKL_GI(s, t, prior), {}),
    "GKL, prior": (["loss=gkl_kd"], lambda s, t, y, prior: GKL_V2(s, t, prior), {}),
    "GKL, no prior": (
        ["loss=gkl_kd", "loss.weighting=sample", "loss.gamma=0.3", "loss.wmse_weight=20", "loss.ce_weight=3"],
        lambda s, t, y, prior: GKL_OFF(s, t, prior),
        {},
    ),
    "KD": (
        ["loss=kd", "task.ce_weight=0.1", "task.warmup_epochs=0"],
        lambda s, t, y, prior: kd(s, t, weight=0.9, temperature=4.0),
        {"ce_weight": 0.1, "warmup": 0},
    ),
    "DKD": (
        ["loss=dkd", "loss.beta=6"],
        lambda s, t, y, prior: dkd(s, t, y, alpha=1.0, beta=6.0, temperature=4.0),
        {},
    ),
}


def silent(steps: int) -> Bar:
    return Bar("", steps, 0, Console(file=io.StringIO()))


def save_teacher(folder: Path, name: str, classes: int) -> nn.Module:
    """Save a network with lively BatchNorm statistics as the public teachers are; returns it in float64."""
    torch.manual_seed(11)
    mean, std = [0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]
    teacher = with_statistics(create_model(name, classes, mean=mean, std=std)).float()
    torch.save({"epoch": 240, "model": teacher.state_dict()}, folder / "ckpt_epoch_240.pth")
    return teacher.double()


class Pair:
    """One student in the shipped loop, and its copy in the official trainer, on the same batches."""

    def __init__(self, folder: Path, method: str, *changes: str) -> None:
        overrides, divergence, settings = METHODS[method]
        teacher = save_teacher(folder, "cifar_resnet14", 5)
        given = f"task.teacher.checkpoint={folder}/ckpt_epoch_240.pth"
        self.cfg = cfg = compose_config("train", [*SIZES, *overrides, given, *changes])
        self.model = build_model(cfg.model).double()
        self.official = Trainer(copy.deepcopy(self.model), teacher, divergence, classes=5, **settings)
        task = build_task(cfg.task, self.model)
        assert isinstance(task, Distillation)
        self.task = task
        self.optimizer = make_optimizer(cfg.optimizer, task.named_parameters())
        images = Images(torch.randint(256, (10, 3, 16, 16), dtype=torch.uint8), torch.arange(10) % 5)
        self.batches = make_batches(typed(cfg, TrainConfig), images, torch.device("cpu"), training=True)

    def epoch(self, number: int) -> tuple[float, float]:
        """Trains both; how far losses and weights are apart."""
        apply_schedule(
            build_schedule(self.cfg.schedule),
            self.optimizer,
            lr=self.cfg.optimizer.lr,
            epoch=number,
            epochs=self.cfg.trainer.epochs,
        )
        row = train_epoch(
            self.task, self.batches, self.optimizer, epoch=number, epochs=240, bar=silent(len(self.batches))
        )
        given = [(batch.images, batch.labels) for batch in self.batches.epoch(number)]
        self.official.epoch(number, given, lr=0.05 * 0.1 ** sum(number > drop for drop in (150, 180, 210)))
        loss = sum(self.official.losses[-2:]) / 2
        theirs = self.official.student.state_dict()
        apart = max((value - theirs[key]).abs().max().item() for key, value in self.model.state_dict().items())
        return abs(row["loss"] - loss) / loss, apart


@pytest.mark.parametrize("method", METHODS)
def test_ten_steps_equal_the_official_codes(method: str, tmp_path: Path) -> None:
    pair = Pair(tmp_path, method)
    apart = [pair.epoch(number) for number in EPOCHS]
    assert max(loss for loss, _ in apart) <= 1e-12, apart
    assert max(weights for _, weights in apart) <= 1e-10, apart


@pytest.mark.parametrize(
    ("method", "change", "epoch"),
    [
        ("IKL, prior", "task.prior_temperature=1", 2),
        ("GKL, prior", "task.prior_momentum=0.5", 2),
        ("IKL, v1", "loss.sample_temperature=4", 1),
        ("IKL, v1", "task.warmup_epochs=10", 1),
        ("KD", "task.ce_weight=0.2", 1),
        ("DKD", "loss.beta=8", 1),
    ],
)
def test_another_setting_shows(method: str, change: str, epoch: int, tmp_path: Path) -> None:
    pair = Pair(tmp_path, method, change)
    *before, (_, weights) = [pair.epoch(number) for number in range(1, epoch + 1)]
    assert weights > 1e-8
    assert all(max(apart) <= 1e-10 for apart in before)  # what changes the prior acts in epoch 2


def test_the_teacher_is_left_as_it_was(tmp_path: Path) -> None:
    pair = Pair(tmp_path, "GKL, prior")
    teacher = pair.task.teacher
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    average = Average(Averaging(), pair.model)
    pair.epoch(1)
    average.update(pair.model, 1, 2)
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in teacher.parameters())
    assert all(torch.equal(value, before[key]) for key, value in teacher.state_dict().items())
    trained = {id(parameter) for group in pair.optimizer.param_groups for parameter in group["params"]}
    assert trained == {id(parameter) for parameter in pair.model.parameters()}
    assert average.state_dict().keys() == pair.model.state_dict().keys()
    assert pair.task.state_dict().keys() == {"teacher", "prior"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_the_teacher_follows_the_student(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    student, teacher = create_model("cifar_resnet8", 5), create_model("cifar_resnet14", 5)
    task = Distillation(student.to(dtype, memory_format=memory_format), teacher, KD(), num_classes=5)
    weight = task.teacher.get_parameter("layer1.0.conv1.weight")
    assert weight.dtype == dtype
    assert weight.is_contiguous(memory_format=memory_format)
    assert weight.is_contiguous() == (memory_format == torch.contiguous_format)
    assert task.prior.table.dtype == dtype


def make_task(loss: Any = None, **settings: Any) -> Distillation:
    return Distillation(make_net(), make_net(), loss or KD(), num_classes=CLASSES, **settings)


@pytest.mark.parametrize("loss", [IKL(), GKL()], ids=["IKL", "GKL"])
def test_views_of_an_image_are_images_of_their_own(loss: Any) -> None:
    task, batch = make_task(loss), make_batch(8)
    other = copy.deepcopy(task)
    for one, views in ((task, 2), (other, 1)):
        with one.step(Batch(batch.images, batch.labels, views), Progress(1, 1)) as out:
            out.loss.backward()
        one.end_epoch()
    gradients = zip(task.model.parameters(), other.model.parameters(), strict=True)
    assert all(torch.equal(a.grad, b.grad) for a, b in gradients)
    assert torch.equal(task.prior.table, other.prior.table)


def test_a_prior_that_the_loss_does_not_take_is_not_kept() -> None:
    task = make_task(IKL(weighting="sample"))
    with task.step(make_batch(), Progress(1, 1)):
        pass
    task.end_epoch()
    assert torch.equal(task.prior.table, torch.full((CLASSES, CLASSES), 1 / CLASSES))


class Fixed(nn.Module):
    """A teacher that predicts the class in each image's first pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, images: Tensor) -> Tensor:
        label = (images[:, 0, 0, 0] * 255).round().long()
        return nn.functional.one_hot(label, CLASSES).to(images.dtype)


def made_batches(count: int, right: int, classes: int = CLASSES) -> Batches:
    """``count`` images of ``classes``; ``Fixed`` classifies ``right`` of them correctly."""
    labels = torch.arange(count) % classes
    images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
    images[:, 0, 0, 0] = torch.where(torch.arange(count) < right, labels, (labels + 1) % CLASSES)
    return Batches(Images(images, labels), Batching(7))


def test_the_teachers_accuracy_is_printed_and_chance_refused(capsys: pytest.CaptureFixture[str]) -> None:
    task = Distillation(make_net(), Fixed(), KD(), num_classes=CLASSES)
    task.before_training(made_batches(80, 46).epoch())
    assert f"teacher Fixed {task.fingerprint[:8]}: 57.50% on 80 test images" in capsys.readouterr().err
    # At chance 20 images are right, with a standard deviation of sqrt(80 · 1/4 · 3/4) = 3.9.
    task.before_training(made_batches(80, 32).epoch())
    with pytest.raises(UserError, match=r"accuracy is 38\.75% on 80 test images, and chance is 25\.00%"):
        task.before_training(made_batches(80, 31).epoch())
    task.before_training(made_batches(20, 0).epoch())  # too few images to judge
    assert "0.00% on 20 test images" in capsys.readouterr().err


def test_a_teacher_of_two_classes_need_not_be_perfect() -> None:
    """Twice chance would be 100 %."""
    Distillation(make_net(), Fixed(), KD(), num_classes=2).before_training(made_batches(80, 72, classes=2).epoch())


def test_a_loss_gets_the_distances_of_the_classifiers_rows_or_of_features(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Features are those of as many images as every class has, whichever batch they are in."""
    labels = torch.tensor([0, 1, 2, 3, 3, 2, 1, 0, 3, 2, 1, 0, 0, 0])
    images = Images(torch.randint(256, (14, 3, 8, 8), dtype=torch.uint8), labels)
    teacher = with_statistics(create_model("cifar_resnet14", CLASSES)).eval()
    tasks = {
        distances: Distillation(
            create_model("cifar_resnet8", CLASSES), teacher, WKD(distances=distances), num_classes=CLASSES
        )
        for distances in ("classifier", "features")
    }
    for task in tasks.values():
        task.before_training(Batches(images, Batching(5)).epoch(), Batches(images, Batching(5)).epoch())
    by_row, by_features = (task.class_distances.detach() for task in tasks.values())
    rows = teacher.fc.weight.detach()
    with torch.no_grad():
        _, found = forward_with_features(teacher, images.images / 255)
    for a, b in itertools.product(range(CLASSES), repeat=2):
        assert by_row[a, b] == pytest.approx(1 - torch.cosine_similarity(rows[a], rows[b], dim=0).item(), abs=1e-6)
        pair = (found.pooled[labels == label][:3].double().numpy() for label in (a, b))
        assert by_features[a, b] == pytest.approx(1 - linear_cka(*pair), abs=1e-4)
    few = Batches(Images(images.images[:7], labels[:7]), Batching(5))  # class 0 has one image
    tasks["features"].before_training(few.epoch(), few.epoch())
    assert "1 of 4 classes have fewer than 2 training images" in capsys.readouterr().err
    distances = tasks["features"].class_distances
    torch.testing.assert_close(distances[0], torch.tensor([0.0, 1, 1, 1]))
    assert distances[1, 2] < 1


def test_a_scheduled_loss_is_that_of_the_epoch() -> None:
    batch = make_batch()
    task = make_task(WKD(decay_from=0.5, distances="classifier"), warmup_epochs=0)
    values = {}
    for epoch in (1, 2, 3, 4):
        with task.step(batch, Progress(epoch, 4)) as out:
            values[epoch] = out.loss.item()
    task.loss = WKD(weight=0)
    with task.step(batch, Progress(1, 4)) as out:
        without = out.loss.item()
    assert values[2] == values[1] > without + 1e-3
    assert values[3] == pytest.approx((values[1] + without) / 2, rel=1e-6)
    assert values[4] == pytest.approx(without)


def test_a_loss_is_needed() -> None:
    with pytest.raises(UserError, match="choose loss=ikl_kd"):
        Distillation(make_net(), make_net(), None, num_classes=CLASSES)


def test_the_recipes_are_the_official_ones() -> None:
    def chosen(*overrides: str) -> DictConfig:
        return compose_config("train", ["data=cifar100", *overrides])

    for recipe, lr in (("kd_cifar", 0.05), ("kd_cifar_mobile", 0.01), ("kd_teacher", 0.05)):
        cfg = chosen(f"recipe={recipe}", "model=cifar_resnet8")
        assert cfg.recipe_name == recipe
        optimizer = make_optimizer(cfg.optimizer, build_model(cfg.model).named_parameters())
        rates = {
            epoch: apply_schedule(
                build_schedule(cfg.schedule), optimizer, lr=cfg.optimizer.lr, epoch=epoch, epochs=cfg.trainer.epochs
            )
            for epoch in range(1, 241)
        }
        expected = {e: lr * 0.1 ** ((e > 150) + (e > 180) + (e > 210)) for e in rates}
        assert rates == pytest.approx(expected, rel=1e-12)
        (group,) = optimizer.param_groups
        assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 5e-4, False)
        assert (cfg.trainer.batch_size, cfg.trainer.epochs, cfg.trainer.drop_last) == (64, 240, False)
        assert (cfg.data.augment.crop_padding, cfg.data.augment.flip, cfg.evaluation.attacks) == (4, True, "none")
        assert list(cfg.model.mean) == [0.5071, 0.4867, 0.4408]
        assert list(cfg.model.std) == [0.2675, 0.2565, 0.2761]
        assert not cfg.attack
        assert bool(cfg.loss) == (recipe != "kd_teacher")

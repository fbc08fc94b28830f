"""What the two tasks share: mask, ramp, weight, measurements; processes and parts of a batch; mistakes in one line."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dkl.assembly import preflight, train
from dkl.attacks import batch_statistics
from dkl.config import compose_config, run_folder
from dkl.data import Batch, Unlabeled
from dkl.errors import UserError
from dkl.losses import GKL, IKL, KL, PairLoss, SoftCE
from dkl.tasks import FixMatch, MeanTeacher, Progress
from tests.tasks.common import CLASSES, interrupted, make_net
from tests.training.common import assert_equal, comparable

FEW = ["data.labels_per_class=3", "data.unlabeled.ratio=2", "trainer.batch_size=8", "trainer.steps_per_epoch=3"]


def make_batch(labeled: int = 4, ratio: int = 3) -> Batch:
    def images(count: int) -> torch.Tensor:
        return torch.rand(count, 1, 4, 4, dtype=torch.float64)

    many = labeled * ratio
    unlabeled = Unlabeled(images(many), images(many), torch.arange(many) % CLASSES)
    return Batch(images(labeled), torch.arange(labeled) % CLASSES, unlabeled=unlabeled)


def linear() -> nn.Module:
    """A network whose predictions are partly certain."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, CLASSES)).double()
    with torch.no_grad():
        net[1].weight.mul_(6)
    return net


@pytest.mark.parametrize("loss", [SoftCE(), KL(), IKL(weighting="sample"), GKL(weighting="sample")], ids=str)
def test_the_mask_selects_and_the_mean_is_over_all(loss: PairLoss) -> None:
    net, batch = linear(), make_batch()
    task = FixMatch(net, loss, threshold=0.7, unlabeled_weight=5.0)
    with task.step(batch, Progress(1, 2)) as out:
        value, ratios = out.loss, out.ratios
    weak, strong = net(batch.unlabeled.weak), net(batch.unlabeled.strong)
    sure = weak.softmax(-1).amax(-1) >= 0.7
    assert 0 < sure.sum() < len(sure)
    expected = F.cross_entropy(net(batch.images), batch.labels) + 5 * sure.double().mean() * loss(
        weak[sure], strong[sure]
    )
    torch.testing.assert_close(value, expected, rtol=1e-12, atol=0)
    right = (weak.argmax(-1) == batch.unlabeled.labels) & sure
    assert [(float(a), float(b)) for a, b in ratios.values()] == [(sure.sum(), 12), (right.sum(), sure.sum())]


class One:
    """A pair loss that is always 1."""

    weighting = "none"

    def __call__(self, weak: torch.Tensor, strong: torch.Tensor) -> torch.Tensor:
        return torch.ones(())


def test_bfloat16_logits_do_not_round_the_share_of_selected_images() -> None:
    task, batch = FixMatch(linear().float(), One(), threshold=0.5), make_batch(labeled=151)
    weak, strong, hidden = batch.unlabeled
    batch = batch._replace(images=batch.images.float(), unlabeled=Unlabeled(weak.float(), strong.float(), hidden))
    with torch.autocast("cpu", torch.bfloat16), task.step(batch, Progress(1, 2)) as out:
        selected, everyone = out.ratios["mask_rate"]
    assert everyone == 453
    assert 0 < selected < 453
    assert (out.sums["unlabeled_loss"] / 151).item() == pytest.approx(selected.item() / 453, rel=1e-6)


def test_nothing_certain_gives_the_labeled_loss_and_a_gradient_for_every_weight() -> None:
    net, batch = make_net().double(), make_batch()
    with FixMatch(net, SoftCE(), threshold=0.999).step(batch, Progress(1, 2)) as out:
        out.loss.backward()
    assert out.ratios["mask_rate"][0] == 0
    assert all(parameter.grad is not None and parameter.grad.isfinite().all() for parameter in net.parameters())


def test_usbs_mean_teacher_ramps_up_to_weight_50_without_a_mask() -> None:
    task = MeanTeacher(linear(), SoftCE(), threshold=0.0, unlabeled_weight=50.0, rampup=0.4)
    at = {(1, 0): 0.0, (1, 2): 0.125, (4, 0): 0.75, (5, 0): 1.0, (10, 3): 1.0}  # 4 steps, 10 epochs: 16 of 40
    for (epoch, step), expected in at.items():
        assert task.ramp(Progress(epoch, 10, step, 4)) == pytest.approx(expected)
    task.use_average(linear())
    batch = make_batch()
    with task.step(batch, Progress(3, 10, 0, 4)) as out:
        mean = out.sums["unlabeled_loss"] / 4
        torch.testing.assert_close(out.loss, F.cross_entropy(task.model(batch.images), batch.labels) + 25 * mean)
    assert out.ratios["mask_rate"] == (12, 12)


def test_mean_teachers_batch_norm_follows_labeled_images_only() -> None:
    student, teacher, batch = make_net().double(), make_net().double(), make_batch()
    task = MeanTeacher(student, SoftCE(), threshold=0.0)
    task.use_average(teacher.eval())
    alone = make_net().double()
    alone.load_state_dict(student.state_dict())
    alone(batch.images)
    before = {key: value.clone() for key, value in teacher.state_dict().items()}
    with task.step(batch, Progress(1, 2)) as out:
        out.loss.backward()
    assert_equal(dict(student.named_buffers()), dict(alone.named_buffers()))
    assert_equal(teacher.state_dict(), before)
    assert not teacher.training
    assert all(parameter.grad is None for parameter in teacher.parameters())
    with torch.no_grad(), batch_statistics(teacher):
        target = teacher(batch.unlabeled.weak).softmax(-1)
    loss = F.cross_entropy(student(batch.unlabeled.strong), target)
    torch.testing.assert_close(out.sums["unlabeled_loss"] / 4, loss.detach())


@pytest.mark.parametrize("name", ["fixmatch", "mean_teacher"])
def test_an_interrupted_run_ends_like_one_that_was_not(name: str, tmp_path: Path) -> None:
    overrides = [f"task={name}", *FEW, "loss=ikl_ssl", "task.threshold=0", "trainer.epochs=3", "trainer.device=cpu"]
    overrides += ["trainer.threads=1", "data.augment.crop_padding=1", "schedule=cosine_steps", "data.test_size=20"]
    broken, whole = (compose_config("train", [*overrides, f"paths.results={tmp_path / place}"]) for place in "ab")
    with interrupted({"fixmatch": FixMatch, "mean_teacher": MeanTeacher}[name]):
        train(broken)
    assert_equal(comparable(train(broken)), comparable(train(whole)))
    rows = comparable(run_folder(whole))["rows"]
    assert rows[-1]["mask_rate"] == 1
    assert 0 < rows[-1]["pseudo_label_accuracy"] < 1
    assert {"labeled_loss", "unlabeled_loss"} <= rows[-1].keys()


def test_parts_of_a_batch_have_its_gradient() -> None:
    net, batch = linear(), make_batch()
    task = FixMatch(net, IKL(weighting="sample"), threshold=0.7)
    gradients = []
    for parts in ([batch], list(batch.parts(2))):
        net.zero_grad()
        for part in parts:
            with task.step(part, Progress(1, 2)) as out:
                (out.loss * part.share).backward()
        gradients.append([parameter.grad.clone() for parameter in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["task=fixmatch", "data.labels_per_class=2"], r"data\.unlabeled\.ratio=0 .* FixMatch needs unlabeled"),
        (["task=fixmatch", "data.unlabeled.ratio=1"], r"ratio=1 needs few labels: set data\.labels_per_class"),
        (["task=classification", *FEW], r"ratio=2, but Classification takes no unlabeled images"),
        (["trainer.steps_per_epoch=5"], r"steps_per_epoch=5 needs few labels"),
        (["task=fixmatch", *FEW, "data.unlabeled.second_view=none"], r"second_view=none must be strong or weak"),
        (["task=fixmatch", *FEW, "data.augment.repeats=2"], r"repeats=2 does not work with data\.labels_per_class"),
        (["task=fixmatch", *FEW, "trainer.accumulate=3"], r"batch_size=8 cannot be cut into 3 equal parts"),
        (["task=fixmatch", *FEW, "loss=ikl"], r"IKL has weighting=class, but unlabeled images have no class"),
        (["task=fixmatch", *FEW, "loss=none"], r"needs a loss between two views: choose loss=pseudo_label_ce"),
        (["task=mean_teacher", *FEW, "averaging=epoch_ema"], r"MeanTeacher needs an average .* averaging=ema_999"),
        (["task=mean_teacher", *FEW, "averaging=none"], r"MeanTeacher needs an average"),
        (["task=fixmatch", *FEW, "trainer.initial_weights=a.pth"], r"no file trainer\.initial_weights=a\.pth"),
        (["task=fixmatch", *FEW, "data.augment.crop_fill=mean"], r"crop_fill=mean must be zeros or reflect"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_mistakes_are_one_line_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as found:
        preflight(compose_config("train", overrides))
    assert "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.labels_per_class=500", r"labels_per_class=500, but class 0 has \d+ training images: lower it"),
        ("data.unlabeled.ratio=300", r"needs 8 x 300 unlabeled images, but there are 1442"),
    ],
)
def test_too_few_images_are_refused_before_the_first_step(change: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        train(compose_config("train", ["task=fixmatch", *FEW, change, f"paths.results={tmp_path}"]))
    assert not list(tmp_path.rglob("checkpoint.pt"))

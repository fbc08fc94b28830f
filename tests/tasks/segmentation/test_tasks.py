"""Both segmentation tasks: APD's terms equal their oracle, the loss is the sum of its parts, mistakes are refused."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

from dkl.assembly import preflight
from dkl.config import compose_config
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import IKL, KL
from dkl.models import create_model, forward_dense
from dkl.tasks import Progress, SegmentationDistillation
from dkl.tasks.segmentation.metrics import count_pixels
from dkl.tasks.segmentation.prototypes import Prototypes
from tests.official.apd import kl_div_mean, prototype_terms

CLASSES, IGNORE = 4, 255


def _network(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return create_model("pspnet_resnet10_w16", CLASSES).double()


def _batch() -> Batch:
    masks = torch.randint(CLASSES, (2, 33, 33))
    masks[:, :9] = IGNORE
    return Batch(torch.rand(2, 3, 33, 33, dtype=torch.float64), masks)


def _task(**settings: Any) -> SegmentationDistillation:
    loss = settings.pop("loss", IKL(weighting="sample"))
    fixed = {"num_classes": CLASSES, "ignore_index": IGNORE, "prototype_width": 6}
    return SegmentationDistillation(_network(0), _network(1), loss, **(fixed | settings))


def _loss(task: SegmentationDistillation, batch: Batch) -> Tensor:
    task.model.train()
    for module in task.model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    with task.step(batch, Progress(1, 1)) as out:
        return out.loss


def test_prototype_terms_are_apds() -> None:
    student, teacher = _network(0), _network(1)
    prototypes = Prototypes(student, teacher, width=6).double()
    features = [torch.randn(2, 128, 5, 4, dtype=torch.float64) for _ in range(2)]
    masks = torch.randint(3, (2, 37, 29))  # the fourth class does not occur
    masks[0, :12] = IGNORE
    terms = prototypes(*features, masks, num_classes=CLASSES, ignore_index=IGNORE)
    with torch.no_grad():
        adapted = [prototypes.student(features[0]).numpy(), prototypes.teacher(features[1]).numpy()]
    expected = prototype_terms(*adapted, masks.numpy(), IGNORE)
    assert (terms.kl.item(), terms.align.item()) == pytest.approx(expected, rel=1e-9)


def test_the_kl_is_apds_and_alone_with_both_weights_it_is_the_difference() -> None:
    batch = _batch()
    with_kl, without = (
        _loss(_task(loss=KL(), masked=False, loss_weight=weight), batch).item() for weight in (10.0, 0.0)
    )
    task = _task()
    task.model.train()
    for module in task.model.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    with torch.no_grad():
        student, teacher = forward_dense(task.model, batch.images).logits, task.teacher(batch.images)
    assert with_kl - without == pytest.approx(10 * kl_div_mean(teacher.numpy(), student.numpy()), rel=1e-9)


def test_prototypes_train_their_adapters_and_resume() -> None:
    task, batch = _task(prototype_weight=10.0, align_weight=10.0, teacher_lr=1e-2), _batch()
    names = {name for name, _ in task.named_parameters()}
    assert {"adapter.0.weight", "adapter.2.bias", "ppm.merge.0.weight"} <= names
    assert task.prototypes is not None
    before = [parameter.clone() for parameter in task.prototypes.teacher.parameters()]
    frozen = [parameter.clone() for parameter in task.teacher.parameters()]
    _loss(task, batch).backward()
    assert not any(map(torch.equal, before, task.prototypes.teacher.parameters()))
    assert all(map(torch.equal, frozen, task.teacher.parameters()))
    assert all(parameter.grad is not None for parameter in task.prototypes.student.parameters())
    other = _task(prototype_weight=10.0, align_weight=10.0, teacher_lr=1e-2)
    other.load_state_dict(task.state_dict())
    other.model.load_state_dict(task.model.state_dict())
    torch.testing.assert_close(_loss(other, batch), _loss(task, batch), rtol=0, atol=0)


@pytest.mark.parametrize("settings", [{}, {"upsample": False}, {"loss": IKL(weighting="class")}], ids=repr)
def test_a_loss_between_equal_networks_is_their_entropy_only(settings: dict[str, Any]) -> None:
    """The weighted MSE is zero if student and teacher agree: only the cross-entropy's weight matters then."""
    task, batch = _task(**settings), _batch()
    task.model.load_state_dict(task.teacher.state_dict())
    task.model.eval()
    values = []
    for loss in (task.loss, IKL(wmse_weight=0.0, weighting=task.loss.weighting)):
        task.loss = loss
        with task.step(batch, Progress(1, 1)) as out:
            values.append(out.loss)
    torch.testing.assert_close(values[0], values[1])


class Unscaled(nn.Module):
    """A network whose logits have the size of the image all along."""

    feature_classifier = "classifier"

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Conv2d(3, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(images)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (nn.Conv2d(3, CLASSES, 1), r"logits of Conv2d before up-sampling are not known: set task\.upsample=true"),
        (Unscaled(), r"\[33, 33\] pixels with the teacher's of \[5, 5\]: set task\.upsample=true"),
    ],
    ids=["unknown", "another size"],
)
def test_logits_before_upsampling_that_cannot_be_compared_are_refused(student: nn.Module, message: str) -> None:
    settings: dict[str, Any] = {"num_classes": CLASSES, "ignore_index": IGNORE, "upsample": False}
    with pytest.raises(UserError, match=message):
        _loss(SegmentationDistillation(student.double(), _network(1), KL(), **settings), _batch())


def test_counts_give_torchmetrics_jaccard_index() -> None:
    predictions, masks = torch.randint(CLASSES, (3, 7, 9)), torch.randint(CLASSES, (3, 7, 9))
    masks[0] = IGNORE
    counts = count_pixels(predictions, masks, num_classes=CLASSES, ignore_index=IGNORE)
    expected = MulticlassJaccardIndex(CLASSES, average="none", ignore_index=IGNORE)(predictions, masks)
    np.testing.assert_allclose(counts.iou.numpy(), expected.numpy(), rtol=1e-6)
    counted = masks != IGNORE
    assert counts.accuracy == pytest.approx((predictions == masks)[counted].double().mean().item())


PIXELS = ["data=scenes", "model=pspnet_resnet10_w16"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data=camvid"], "has a label per pixel: add task=segmentation"),
        (["task=segmentation"], "needs a label per pixel"),
        (["task=segmentation", "data=scenes"], "choose a network that labels pixels"),
        (["task=classification", "model=pspnet_resnet10_w16", "data=cifar10"], "choose a network that labels images"),
        ([*PIXELS, "task=segmentation", "task.aux_weight=-1"], "task.aux_weight=-1 must be"),
        ([*PIXELS, "task=segmentation", "data.augment.scale=[2,1]"], "data.augment.scale"),
        ([*PIXELS, "task=segmentation", "selection.every=1", "selection.holdout=4"], "selection attacks images"),
        (["data=scenes", "task=segmentation", "model=timm", "model.name=smp_none_resnet18"], "Wrong architecture"),
    ],
)
def test_mistakes_are_one_line_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        preflight(compose_config("train", overrides))
    assert "\n" not in str(caught.value)

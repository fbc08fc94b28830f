"""Both segmentation tasks: APD's terms equal their oracle, the loss is the sum of its parts, mistakes are refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torchmetrics.classification import MulticlassJaccardIndex

from dkl.assembly import preflight
from dkl.config import compose_config
from dkl.config.identity import config_hash
from dkl.data import Batch
from dkl.errors import UserError
from dkl.losses import IKL, KL
from dkl.models import create_model, forward_dense
from dkl.tasks import Progress, SegmentationDistillation
from dkl.tasks.segmentation import count_pixels
from dkl.tasks.segmentation_distillation import Prototypes
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


@pytest.mark.parametrize("images", [None, 2])
def test_prototype_terms_are_apds(images: int | None) -> None:
    """APD's GPUs have two images each, and its gradient is the mean over GPUs."""
    student, teacher = _network(0), _network(1)
    prototypes = Prototypes(student, teacher, width=6, images=images).double()
    features = [torch.randn(4, 128, 5, 4, dtype=torch.float64) for _ in range(2)]
    masks = torch.randint(3, (4, 37, 29))  # the fourth class does not occur
    masks[0, :12] = IGNORE
    terms = prototypes(*features, masks, num_classes=CLASSES, ignore_index=IGNORE)
    with torch.no_grad():
        adapted = [prototypes.student(features[0]).numpy(), prototypes.teacher(features[1]).numpy()]
    count = images or 4
    parts = [slice(first, first + count) for first in range(0, 4, count)]
    oracle = [prototype_terms(*(values[part] for values in adapted), masks.numpy()[part], IGNORE) for part in parts]
    expected = tuple(np.mean(oracle, axis=0))
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
        ([*PIXELS, "task=segmentation", "task.encoder_weights=a.pth"], "encoder_weights=a.pth is no file, and timm"),
        (["data=camvid"], "has a label per pixel: add task=segmentation"),
        (["task=segmentation"], "needs a label per pixel"),
        (["task=segmentation", "data=scenes"], "choose a network that labels pixels"),
        (["task=classification", "model=pspnet_resnet10_w16", "data=cifar10"], "choose a network that labels images"),
        ([*PIXELS, "task=segmentation", "selection.every=1", "selection.holdout=4"], "selection attacks images"),
        (["data=scenes", "task=segmentation", "model=timm", "model.name=smp_none_resnet18"], "Wrong architecture"),
    ],
)
def test_mistakes_are_one_line_before_any_work(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        preflight(compose_config("train", overrides))
    assert "\n" not in str(caught.value)


def _semseg(network: nn.Module) -> dict[str, Tensor]:
    """The encoder of a PSPNet as semseg's ImageNet file of a ResNet with a deep stem has it, with a classifier."""
    stem = {0: "conv1", 1: "bn1", 3: "conv2", 4: "bn2", 6: "conv3", 7: "bn3"}
    found = {"fc.weight": torch.zeros(1000, 128), "fc.bias": torch.zeros(1000)}
    for key, value in network.state_dict().items():
        first, second, *rest = key.split(".")
        if first == "layer0":
            found[".".join([stem[int(second)], *rest])] = value.clone()
        elif first.startswith("layer"):
            found[key] = value.clone()
    return found


def test_an_encoder_starts_from_semsegs_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No tensor of the encoder is left random, as 21 of 115 are by timm's weights of a plain ResNet-18."""
    path, source = tmp_path / "resnet18_v2.pth", _network(2)
    torch.save({f"module.{key}": value for key, value in _semseg(source).items()}, path)
    task = _task(encoder_weights=str(path))
    own, wanted = task.model.state_dict(), source.state_dict()
    encoder = [key for key in own if key.startswith("layer")]
    assert all(torch.equal(own[key], wanted[key]) for key in encoder)
    assert f"{len(encoder)} of {len(encoder) + 2} tensors" in capsys.readouterr().err
    assert not torch.equal(own["cls.0.weight"], wanted["cls.0.weight"])


def test_apds_recipe_is_apds() -> None:
    cfg = compose_config("train", ["recipe=apd", "data=ade20k"])
    task = cfg.task
    assert (task.loss_weight, task.prototype_weight, task.align_weight, task.prototype_images) == (10, 10, 10, 2)
    assert (task.masked, task.mean_over_classes, cfg.evaluation.long_side, cfg.evaluation.mirrored) == (
        *(False, True, 512, True),
    )
    hashes = {
        config_hash(compose_config("train", ["recipe=apd", "data=ade20k", "task.teacher.name=a", given]))
        for given in ("task.encoder_weights=here/a.pth", "task.encoder_weights=there/a.pth")
    }
    assert len(hashes) == 1  # a moved file is the same one

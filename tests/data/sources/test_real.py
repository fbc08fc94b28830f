"""Real images: CIFAR has the published sizes, balance and means; ResNets train on files of ImageNet."""

import json
import os
from pathlib import Path

import pytest
import torch

from dkl.assembly import train
from dkl.config import compose_config
from dkl.data import cifar, imagenet
from dkl.evaluation import evaluate
from dkl.models import create_model
from dkl.records import Flags, Record, load, load_flags

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif("DKL_DATA_DIR" not in os.environ, reason="needs real images: set DKL_DATA_DIR to their folder"),
]

MEANS = {"cifar10": (0.4914, 0.4822, 0.4465), "cifar100": (0.5071, 0.4867, 0.4408)}


@pytest.mark.parametrize(("name", "classes"), [("cifar10", 10), ("cifar100", 100)])
def test_real_cifar(name: str, classes: int) -> None:
    train, test = cifar(name, os.environ["DKL_DATA_DIR"], download=False)
    for images, count in ((train, 50_000), (test, 10_000)):
        assert images.images.shape == (count, 3, 32, 32)
        assert images.labels.bincount().tolist() == [count // classes] * classes
    flat = train.images.transpose(0, 1).reshape(3, -1)
    means = [plane.sum().item() / plane.numel() / 255 for plane in flat]
    assert means == pytest.approx(MEANS[name], abs=1e-3)


@pytest.fixture
def sample() -> str:
    """Ten classes of ImageNet, 40 training and 20 validation images each."""
    folder = Path(os.environ["DKL_DATA_DIR"]) / "imagenet10"
    if not folder.is_dir():
        pytest.skip(f"needs a sample of ImageNet in {folder}")
    return str(folder)


def test_real_imagenet_files(sample: str) -> None:
    train, test = imagenet(sample, 10, 64)
    assert train.per_class(10).tolist() == [40] * 10
    assert test.per_class(10).tolist() == [20] * 10
    colors = test.balanced(100).tensor().double().div(255).mean((0, 2, 3))
    assert colors.tolist() == pytest.approx([0.485, 0.456, 0.406], abs=0.06)  # ImageNet's mean, but of ten classes only


def test_a_resnet_learns_from_a_resnet_on_real_imagenet_files(sample: str, tmp_path: Path) -> None:
    """A row of Table 4 in small: two batches, then top-1, top-5 and best epoch in the record."""
    torch.save(create_model("resnet18", 10).state_dict(), tmp_path / "teacher.pth")
    small = ["data.num_classes=10", "data.shape=[3,32,32]", "data.train_size=20", "data.test_size=20"]
    small += [
        "trainer.epochs=1",
        "trainer.batch_size=10",
        "trainer.workers=2",
        "trainer.device=cpu",
        "trainer.threads=1",
    ]
    places = [f"paths.results={tmp_path}", f"data.source.root={sample}"]
    teacher = ["task.teacher.name=resnet18", f"task.teacher.checkpoint={tmp_path / 'teacher.pth'}"]
    chosen = ["data=imagenet", "recipe=kd_imagenet", "model=resnet18", "loss=gkl_kd", "loss.ce_temperature=1"]
    folder = train(compose_config("train", [*chosen, *small, *places, *teacher]))
    (line,) = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    assert 1 < line["loss"] < 20
    record, flags = evaluated(folder, tmp_path)
    assert (record.n, record.attacks, record.architecture) == (20, [], "ResNet-18")
    assert record.clean == flags["clean"].mean()
    assert record.top5 == flags["top5"].mean() >= record.clean
    assert record.best is not None
    assert record.shots is None  # all classes have the same number of images


def test_a_long_tail_of_real_imagenet_files(sample: str, tmp_path: Path) -> None:
    """Lists with 40 images of some classes and 4 of others: the record has accuracy per shot group."""
    per_class = [40, 40, 40, 40, 40, 4, 4, 4, 4, 4]
    for split, counts in (("train", per_class), ("val", [2] * 10)):
        classes = sorted(path for path in (Path(sample) / split).iterdir())
        named = [
            (path, label) for label, folder in enumerate(classes) for path in sorted(folder.iterdir())[: counts[label]]
        ]
        lines = (f"{path.relative_to(sample)} {label}" for path, label in named)
        (tmp_path / f"{split}.txt").write_text("\n".join(lines) + "\n")
    chosen = ["data=imagenet_lt", "recipe=kd_imagenet_lt_teacher", "model=resnet18", "data.num_classes=10"]
    lists = [f"data.source.{part}_list={tmp_path / file}.txt" for part, file in (("train", "train"), ("test", "val"))]
    small = ["data.shape=[3,32,32]", "trainer.epochs=1", "trainer.batch_size=110", "trainer.workers=2"]
    places = [f"paths.results={tmp_path}", f"data.source.root={sample}", "trainer.device=cpu", "trainer.threads=1"]
    cfg = compose_config("train", [*chosen, "schedule.warmup_epochs=0", *lists, *small, *places])
    record, flags = evaluated(train(cfg), tmp_path)
    right = flags["clean"].reshape(10, 2).mean(axis=1)
    assert record.n == 20
    assert record.shots == {"medium": right[:5].mean(), "few": right[5:].mean()}


def evaluated(folder: Path, results: Path) -> tuple[Record, Flags]:
    """Evaluate the clean accuracy of the run in ``folder``. Returns its record and flags."""
    places = [f"paths.results={results}", "device=cpu", "threads=1"]
    path = evaluate(compose_config("evaluate", [f"run='{folder}'", "attacks=none", *places]))
    return load(path), load_flags(path)

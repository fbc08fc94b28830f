"""The strong recipe equals VanillaKD's command, trains on files, and continues bit for bit after interruptions."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from dkl.assembly import build_model, preflight, train
from dkl.config import compose_config
from dkl.data import Batch
from dkl.models import create_model
from dkl.storage import checkpoint
from dkl.tasks import Distillation, Output, Progress
from tests.data.image_files import write_folder
from tests.training.common import assert_equal, comparable

COMMAND = (  # Hao840/vanillaKD, readme.md, strategy A2
    "--nproc_per_node 8 --epochs 300 --batch-size 256 --lr 5e-3 --opt lamb --sched cosine --weight-decay 0.02 "
    "--warmup-epochs 5 --warmup-lr 1e-6 --smoothing 0.0 --drop-path 0.05 --aug-repeats 3 --aa rand-m7-mstd0.5 "
    "--mixup 0.1 --cutmix 1.0 --bce-loss 1"
)


class Interrupted(BaseException):
    """Not an Exception, like KeyboardInterrupt."""


def strong(root: Path, results: str, *overrides: str) -> Any:
    """The recipe on image files of three classes in ``root``, 32 pixels a side, with a small teacher and student."""
    given = ["data=imagenet", "recipe=kd_strong", "loss=kd", "model=small_cnn", "data.num_classes=3"]
    given += ["data.shape=[3,32,32]", f"data.source.root={root}", f"paths.results={root / results}"]
    given += ["task.teacher.name=small_cnn", f"task.teacher.checkpoint={root}/teacher.pt", "trainer.threads=1"]
    given += [
        "schedule.warmup_epochs=1",
        "trainer.epochs=3",
        "trainer.batch_size=6",
        "trainer.workers=0",
        "trainer.accumulate=2",
    ]
    return compose_config("train", [*given, "evaluation.batch_size=4", *overrides])


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """ImageNet's folders with twelve images to train on, and a teacher's weights."""
    write_folder(tmp_path / "train", 4)
    write_folder(tmp_path / "val", 2, first=50)
    torch.save(create_model("small_cnn", 3, in_chans=3).state_dict(), tmp_path / "teacher.pt")
    return tmp_path


def test_the_recipe_is_the_published_command(tmp_path: Path) -> None:
    words = COMMAND.split()
    given_options = dict(zip(words[::2], words[1::2], strict=True))
    torch.save(create_model("small_cnn", 1000, in_chans=3).state_dict(), tmp_path / "teacher.pt")
    teacher = ["task.teacher.name=small_cnn", f"task.teacher.checkpoint={tmp_path}/teacher.pt"]
    cfg = compose_config("train", ["data=imagenet", "recipe=kd_strong", "trainer.device=cpu", *teacher])
    preflight(cfg)
    optimizer, task = cfg.optimizer, cfg.task
    numbers = {
        "--epochs": cfg.trainer.epochs,
        "--lr": optimizer.lr,
        "--weight-decay": optimizer.weight_decay,
        "--warmup-epochs": cfg.schedule.warmup_epochs,
        "--warmup-lr": cfg.schedule.warmup_lr,
        "--smoothing": 0.0,
        "--drop-path": cfg.model.drop_path_rate,
        "--aug-repeats": cfg.data.augment.repeats,
        "--mixup": task.mixup,
        "--cutmix": task.cutmix,
        "--bce-loss": task.bce,
    }
    assert {key: float(given_options[key]) for key in numbers} == numbers
    assert (optimizer.name.value, cfg.data.augment.randaugment) == (given_options["--opt"], given_options["--aa"])
    assert cfg.schedule._target_.rpartition(".")[2].lower().startswith(given_options["--sched"])
    assert cfg.trainer.batch_size == int(given_options["--nproc_per_node"]) * int(given_options["--batch-size"])
    assert (cfg.model.name, cfg.trainer.drop_last, cfg.data.augment.flip) == ("resnet50", True, True)
    # The defaults of train-kd.py, and timm 0.6.5's of ResNet-50.
    augment, data = cfg.data.augment, cfg.data
    assert (augment.interpolation, data.interpolation, data.center_crop) == ("random", "bicubic", 0.95)
    assert (task.warmup_epochs, task.ce_weight, optimizer.decay_vectors) == (0, 1.0, False)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build_model(cfg.model).parameters())
    assert count == 25_557_032  # torchvision's and timm's ResNet-50


def test_its_own_student_takes_two_steps_on_files(files: Path) -> None:
    run = train(strong(files, "results", "model=resnet50_drop_path", "trainer.epochs=1"))
    content = checkpoint.read(run / "checkpoint.pt")
    (row,) = content["rows"]
    assert row["lr"] == pytest.approx(1e-6)
    assert row["loss"] > 0
    assert content["optimizer"]["param_groups"][0]["step"] == 2
    assert [group["weight_decay"] for group in content["optimizer"]["param_groups"]] == [0.02, 0.0]


def test_it_continues_bit_for_bit(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With LAMB, warm-up, RandAugment, repeats, mixing and accumulation in parts."""
    original, calls, fail = Distillation.step, [], True

    @contextmanager
    def step(self: Distillation, batch: Batch, progress: Progress) -> Iterator[Output]:
        with original(self, batch, progress) as out:
            if fail and (progress.epoch, progress.step, batch.first) == (2, 1, 3):  # between the parts of a batch
                raise Interrupted
            calls.append((progress.epoch, progress.step, batch.first))
            yield out

    monkeypatch.setattr(Distillation, "step", step)
    broken = strong(files, "broken")
    with pytest.raises(Interrupted):
        train(broken)
    assert calls == [(1, 0, 0), (1, 0, 3), (1, 1, 0), (1, 1, 3), (2, 0, 0), (2, 0, 3), (2, 1, 0)]
    fail = False
    resumed = comparable(train(broken))
    whole = comparable(train(strong(files, "whole", "trainer.workers=2")))
    assert resumed["config"]["trainer"].pop("workers") != whole["config"]["trainer"].pop("workers")
    for content in (resumed, whole):
        assert len(content["rows"]) == 3
    assert_equal(resumed, whole)

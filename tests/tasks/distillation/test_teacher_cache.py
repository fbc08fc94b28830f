"""A teacher that is asked once an image, before training: the same student as one that is asked at every step."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dkl.assembly import preflight, train
from dkl.errors import UserError
from dkl.models import create_model
from dkl.storage import checkpoint
from dkl.tasks import Distillation
from tests.data.image_files import write_folder
from tests.tasks.common import Spy, interrupted
from tests.training.common import assert_equal, comparable, make_config

UNEVEN = ("data.train_size=33", "data.test_size=20")  # a batch of 32, and one of a single image
EXACT = ("trainer.precision=float64", "trainer.channels_last=false", "trainer.device=cpu")


@pytest.fixture
def teacher(tmp_path: Path) -> str:
    """A network for digits in a file."""
    torch.manual_seed(2)
    torch.save(create_model("small_cnn", 10, in_chans=1).state_dict(), tmp_path / "teacher.pt")
    return f"task.teacher.checkpoint={tmp_path}/teacher.pt"


def student(results: Path, *overrides: str, epochs: int = 3) -> Any:
    """A run of GKL-KD, whose prior is the teacher's as well."""
    given = ["task=distillation", "loss=gkl_kd", "model=small_cnn", "task.teacher.name=small_cnn", *UNEVEN]
    return make_config(results, *given, *overrides, epochs=epochs)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Spy]:
    """The forwards of every teacher, by task."""
    spies: list[Spy] = []
    original = Distillation.__init__

    def init(self: Distillation, *args: Any, **settings: Any) -> None:
        original(self, *args, **settings)
        spies.append(Spy(self.teacher))

    monkeypatch.setattr(Distillation, "__init__", init)
    return spies


def test_the_teacher_is_asked_once_an_image_and_the_student_is_the_same(
    tmp_path: Path, teacher: str, asked: list[Spy]
) -> None:
    one, two = (train(student(tmp_path, *EXACT, teacher, f"task.cache_teacher={kept}")) for kept in ("true", "false"))
    counts = [sum(len(call.images) for call in spy.calls if call.images.device.type == "cpu") for spy in asked]
    assert [count for count in counts if count] == [20 + 33, 20 + 3 * 33]
    states = [checkpoint.read(run / "checkpoint.pt") for run in (one, two)]
    for name, value in states[0]["model"].items():
        torch.testing.assert_close(value, states[1]["model"][name], rtol=0, atol=1e-12)
    torch.testing.assert_close(states[0]["task"]["prior"], states[1]["task"]["prior"], rtol=0, atol=1e-12)
    assert states[0]["task"].keys() == {"teacher", "prior"}  # the logits are not saved


@pytest.mark.parametrize("changes", [["task.cache_teacher=true"], ["loss=wkd", "loss.distances=features"]], ids=str)
def test_an_interrupted_run_continues_bit_for_bit(tmp_path: Path, teacher: str, changes: list[str]) -> None:
    options = (teacher, *changes)
    broken = student(tmp_path / "broken", *options)
    with interrupted(Distillation):
        train(broken)
    whole = train(student(tmp_path / "whole", *options))
    assert_equal(comparable(train(broken)), comparable(whole))


def test_images_that_an_epoch_leaves_out_are_known_in_the_next(tmp_path: Path, teacher: str, asked: list[Spy]) -> None:
    train(student(tmp_path, teacher, "task.cache_teacher=true", "trainer.drop_last=true", "data.train_size=40"))
    assert sum(len(call.images) for call in asked[-1].calls) == 20 + 40


def test_images_that_change_are_refused_before_any_work(tmp_path: Path, teacher: str) -> None:
    for change, named in [
        ("data.augment.flip=true", "data.augment.flip change"),
        ("data.augment.crop_padding=1", "data.augment.crop_padding change"),
        ("data.augment.repeats=2", "data.augment.repeats change"),
        ("data.augment.second_view=cutout", "data.augment.second_view change"),
        ("task.mixup=0.1", "task.mixup change"),
        ("task.cutmix=1", "task.cutmix change"),
        ("data.synthetic={files:[a.npz],fraction:0.5}", "data.synthetic.files change"),
    ]:
        cfg = student(tmp_path / "results", teacher, "loss=kd", "task.cache_teacher=true", change)
        with pytest.raises(UserError, match=rf"{named} the images: set task\.cache_teacher=false, or turn those off"):
            preflight(cfg)
    preflight(student(tmp_path / "results", teacher, "task.cache_teacher=true"))


def test_images_read_from_files_are_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_folder(tmp_path / split, 2)
    torch.save(create_model("small_cnn", 3, in_chans=3).state_dict(), tmp_path / "teacher.pt")
    files = ["data=imagefiles", "data.num_classes=3", "data.shape=[3,16,16]", f"paths.data={tmp_path}"]
    files += ["data.train_size=null", "data.test_size=null", "data.augment.flip=false"]
    given = f"task.teacher.checkpoint={tmp_path}/teacher.pt"
    cfg = student(tmp_path / "results", *files, given, "task.cache_teacher=true")
    with pytest.raises(UserError, match=r"cache_teacher=true.* cropped at random: set task\.cache_teacher=false"):
        train(cfg)
    assert not (tmp_path / "results").exists()

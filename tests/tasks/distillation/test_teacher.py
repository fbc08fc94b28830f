"""Teachers from files and runs: the weights they have, the mistakes that are found first, and what a run remembers."""

from pathlib import Path
from typing import Any

import pytest
import torch

from dkl.assembly import preflight, train
from dkl.config import compose_config, run_folder
from dkl.config.identity import config_hash
from dkl.errors import UserError
from dkl.models import create_model, create_teacher, fingerprint
from dkl.storage import checkpoint
from dkl.tasks import Distillation
from tests.tasks.common import interrupted
from tests.training.common import assert_equal, comparable, make_config

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.2, 0.3]


def finished_run(folder: Path, **changes: Any) -> Path:
    """The folder of a run of cifar_resnet8 on 7 classes of 16×16 images, as ``dkl train`` leaves it."""
    torch.manual_seed(5)
    state = create_model("cifar_resnet8", 7).state_dict()
    content: dict[str, Any] = {
        "epoch": 3,
        "model": state,
        "config": {
            "trainer": {"epochs": 3},
            "data": {"num_classes": 7, "shape": [3, 16, 16]},
            "model": {"name": "cifar_resnet8", "mean": MEAN, "std": STD},
        },
    }
    folder.mkdir()
    torch.save(content | changes, folder / "checkpoint.pt")
    return folder


def make(**changes: Any) -> torch.nn.Module:
    """A teacher for ``finished_run``, but for ``changes``."""
    asked: dict[str, Any] = {"name": "cifar_resnet8", "num_classes": 7, "mean": MEAN, "std": STD, "size": [16, 16]}
    return create_teacher(**(asked | changes))


def test_a_run_gives_its_last_weights_or_their_average(tmp_path: Path) -> None:
    plain = finished_run(tmp_path / "plain")
    state = checkpoint.read(plain / "checkpoint.pt")["model"]
    average = {key: value + 1 if value.is_floating_point() else value for key, value in state.items()}
    averaged = finished_run(tmp_path / "averaged", average=average)
    images = torch.rand(4, 3, 16, 16)
    for run, expected in ((plain, state), (averaged, average)):
        teacher = make(run=str(run))
        assert_equal(dict(teacher.state_dict()), dict(expected))
        assert not teacher.training
        assert not any(parameter.requires_grad for parameter in teacher.parameters())
        plain_network = create_model("cifar_resnet8", 7).eval()
        plain_network.load_state_dict(expected)
        scaled = (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
        assert torch.allclose(teacher(images), plain_network(scaled), atol=1e-5)


def test_a_public_teachers_file_is_its_weights(tmp_path: Path) -> None:
    network = create_model("cifar_resnet14", 7)
    path = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "accuracy": 72.3, "model": network.state_dict(), "optimizer": {}}, path)
    teacher = make(name="cifar_resnet14", checkpoint=str(path))
    assert_equal(dict(teacher.state_dict()), dict(network.state_dict()))
    assert fingerprint(teacher) == fingerprint(network)


def test_a_fingerprint_tells_every_weight() -> None:
    network = create_model("cifar_resnet8", 7)
    before = fingerprint(network)
    assert fingerprint(network) == before
    for name, value in (*network.named_parameters(), *network.named_buffers()):
        with torch.no_grad():
            value.view(-1)[-1] += 1
            assert fingerprint(network) != before, name
            value.view(-1)[-1] -= 1
    assert fingerprint(network.to(torch.bfloat16)) != before


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"run": None}, r"needs weights from one place: set task\.teacher\.checkpoint=FILE"),
        ({"checkpoint": "weights.pt"}, "needs weights from one place"),
        ({"run": "nowhere"}, r"task\.teacher\.run=nowhere has no checkpoint\.pt"),
        ({"run": None, "checkpoint": "nowhere.pt"}, r"there is no checkpoint at nowhere\.pt"),
        ({"name": "cifar_resnet14"}, r"name=cifar_resnet14, but the run .* has cifar_resnet8: set task\.t"),
        ({"num_classes": 6}, "num_classes=6, but the run .* has 7"),
        ({"in_chans": 1, "mean": None, "std": None}, "in_chans=1, but the run .* has 3"),
        ({"size": [32, 16]}, r"size=\[32, 16\], but the run .* has \[16, 16\]: train the teacher on"),
        ({"mean": [0.4, 0.5, 0.61]}, r"mean=\[0\.4, 0\.5, 0\.61\], but the run .*0\.6\]: set task\.teacher"),
        ({"std": [0.2, 0.2, 0.2]}, r"std=\[0\.2, 0\.2, 0\.2\], but the run .* has \[0\.2, 0\.2, 0\.3\]"),
        ({"mean": None, "std": None}, "mean=null, but the run"),
        ({"name": "cifar_resnet9"}, "there is no model 'cifar_resnet9'"),
    ],
)
def test_mistakes_are_found_before_any_work(asked: dict[str, Any], message: str, tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        make(**({"run": str(run)} | asked))


def test_unfinished_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has trained 2 of 3 epochs: finish it first"):
        make(run=str(finished_run(tmp_path / "unfinished", epoch=2)))
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    torch.save({"model": create_model("cifar_resnet8", 7).state_dict()}, foreign / "checkpoint.pt")
    with pytest.raises(UserError, match=r"is not from dkl train: use task\.teacher\.checkpoint="):
        make(run=str(foreign))


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": create_model("cifar_resnet8", 6).state_dict()}, path)
    with pytest.raises(UserError, match=r"of another shape: .*fc\.weight \(6, 64\) for \(7, 64\)"):
        make(checkpoint=str(path))
    with pytest.raises(UserError, match="does not fit this CifarResNet"):
        make(name="cifar_resnet14", checkpoint=str(path))
    torch.save(create_model("cifar_vgg8", 7).state_dict(), path)
    with pytest.raises(UserError, match=r"cifar_vgg8 does not take images \[3, 4, 4\]"):
        make(name="cifar_vgg8", checkpoint=str(path), size=[4, 4])


def student(results: Path, teacher: str, *overrides: str, epochs: int = 3) -> Any:
    """A run of GKL-KD on digits, whose prior is state, of a small network as its own teacher."""
    given = ["task=distillation", "loss=gkl_kd", "model=small_cnn", "task.teacher.name=small_cnn", teacher]
    return make_config(results, *given, *overrides, epochs=epochs)


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network trained on digits for two epochs."""
    return train(make_config(tmp_path_factory.mktemp("teacher"), "task=classification", epochs=2))


def test_an_interrupted_student_ends_like_one_that_was_not(
    tmp_path: Path, teacher_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = student(tmp_path / "broken", f"task.teacher.run={teacher_run}")
    with interrupted(Distillation):
        train(broken)
    resumed, whole = train(broken), train(student(tmp_path / "whole", f"task.teacher.run={teacher_run}"))
    assert_equal(comparable(resumed), comparable(whole))
    state = comparable(whole)["task"]
    assert state["prior"]["table"].std() > 1e-4  # not uniform
    assert capsys.readouterr().err.count("on 40 test images") == 3  # once each time that training starts


def test_another_teacher_in_the_same_place_does_not_go_on(tmp_path: Path) -> None:
    path = tmp_path / "teacher.pt"
    torch.save(create_model("small_cnn", 10, in_chans=1).state_dict(), path)
    cfg = student(tmp_path, f"task.teacher.checkpoint={path}", epochs=1)
    train(cfg)
    train(cfg)
    torch.save(create_model("small_cnn", 10, in_chans=1).state_dict(), path)
    with pytest.raises(UserError, match=r"this run began with the teacher \w{8}, but task\.teacher is now"):
        train(cfg)


def test_a_missing_teacher_leaves_no_folder(tmp_path: Path) -> None:
    cfg = student(tmp_path, "task.teacher.run=nowhere")
    with pytest.raises(UserError, match="has no checkpoint"):
        train(cfg)
    assert not run_folder(cfg).exists()
    with pytest.raises(UserError, match=r"no value yet: task\.teacher\.name"):
        preflight(compose_config("train", ["task=distillation"]))


def test_a_runs_hash_knows_the_teacher_and_not_where_it_lies() -> None:
    def found(*given: str) -> str:
        return config_hash(compose_config("train", ["task=distillation", "task.teacher.name=small_cnn", *given]))

    here = found("task.teacher.run=results/runs/a-b-s0-12345678")
    for same in ("/elsewhere/a-b-s0-12345678", "../a-b-s0-12345678/"):
        assert found(f"task.teacher.run={same}") == here
    file = found("task.teacher.checkpoint=teachers/resnet56/ckpt_epoch_240.pth")
    assert found("task.teacher.checkpoint=/data/ckpt_epoch_240.pth") == file
    others = [
        here,
        file,
        found("task.teacher.run=results/runs/a-b-s1-12345678"),
        found("task.teacher.checkpoint=results/runs/a-b-s0-12345678"),
        found("task.teacher.run=results/runs/a-b-s0-12345678", "task.teacher.name=wrn10_2"),
        found("task.teacher.run=results/runs/a-b-s0-12345678", "task.warmup_epochs=3"),
    ]
    assert len(set(others)) == 6

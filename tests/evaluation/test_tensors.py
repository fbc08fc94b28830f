"""``autoattack`` on tensors: the flags and the record of ``dkl evaluate``, on any callable and memory format."""

import doctest
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dkl.cli import main
from dkl.data import digits
from dkl.errors import UserError
from dkl.evaluation import autoattack, tensors
from dkl.models import create_model, load_checkpoint
from dkl.records import load, load_flags
from dkl.threat import SUITES
from tests.evaluation.common import evaluate_run, shorten, some_digits, tiny_run, trained


def test_flags_are_those_of_dkl_evaluate(tmp_path: Path) -> None:
    run = tiny_run(tmp_path / "run", "trainer.epochs=2")
    attacks = ["apgd-ce", "pgd-3"]
    record, flags = evaluate_run(run, tmp_path, f"attacks=[{','.join(attacks)}]", "eps=0.05", "batch_size=16")
    model = create_model("small_cnn", 10, in_chans=1)
    load_checkpoint(model, run / "checkpoint.pt")
    test = digits()[1].balanced(40)
    result = autoattack(model, test.images, test.labels, eps=0.05, attacks=attacks, batch_size=16)
    assert all(np.array_equal(result.flags[name].numpy(), flags[name]) for name in flags)
    assert result.accuracies == {"clean": record.clean} | {name: record.per_attack[name].robust for name in attacks}
    low, high = result.intervals["pgd-3"]
    assert low < result.accuracies["pgd-3"] < high
    path = result.save(tmp_path / "memory", method="mine", dataset="digits", architecture="CNN 8/16")
    saved = load(path)
    same = ("clean", "robust", "attacks", "eps", "norm", "n", "data_sha256", "checkpoint_sha256", "batch_size")
    assert all(getattr(saved, name) == getattr(record, name) for name in same)
    assert load_flags(path).keys() == flags.keys()
    main(["tables", f"results={tmp_path / 'memory'}"])
    assert "mine" in next((tmp_path / "memory" / "tables").glob("digits*.md")).read_text()


def test_any_callable_and_memory_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, steps=3, queries=10)
    images, labels = some_digits(24)
    images = images.expand(-1, 2, -1, -1)

    def function(x: Tensor) -> Tensor:
        return trained()(x.contiguous(memory_format=torch.channels_last)[:, :1])

    options = {"eps": "16/255", "norm": "L2", "attacks": "bounded", "tolerance": 100, "batch_size": 10, "seed": 1}
    result = autoattack(function, images.contiguous(memory_format=torch.channels_last), labels, **options)
    assert result.attacks == list(SUITES["bounded"])
    assert result.bound is not None
    assert result.bound.low <= float(result.robust.double().mean()) <= result.bound.high
    low, high = result.intervals["sample-square"]
    assert low <= result.bound.low <= result.bound.high <= high
    again = autoattack(function, images, labels, **options, folder=tmp_path)
    assert all(torch.equal(result.flags[name], again.flags[name]) for name in again.flags)
    assert len(list(tmp_path.glob("*/*.npz"))) == 1


def test_a_folder_holds_the_progress_of_several_evaluations(tmp_path: Path) -> None:
    images, labels = some_digits(20)
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def attacked(model: Callable[[Tensor], Tensor], eps: float, folder: Path | None = tmp_path) -> list[bool]:
        result = autoattack(model, images, labels, eps=eps, attacks=["pgd-2"], folder=folder)
        return result.robust.tolist()

    calls = [(trained(), 0.01), (trained(), 0.3), (linear, 0.01)]
    alone = [attacked(model, eps, None) for model, eps in calls]
    for _ in range(2):  # the second time from the files
        assert [attacked(model, eps) for model, eps in calls] == alone
    assert len(list(tmp_path.glob("*/*.npz"))) == 3

    attacked(lambda x: trained()(x), 0.01)
    assert attacked(lambda x: trained()(x) * 1.001, 0.01) == alone[0]  # as another device rounds
    with pytest.raises(UserError, match="function with other logits: choose another folder"):
        attacked(lambda x: -trained()(x), 0.01)


def test_the_callers_random_numbers_and_networks_are_not_changed() -> None:
    images, labels = some_digits(4)
    state = torch.get_rng_state()
    autoattack(trained(), images, labels, eps=0.1, norm="L2", attacks=["square", "fab"], batch_size=2)
    assert torch.equal(torch.get_rng_state(), state)

    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 10))
    for function in (lambda x: network(x / 2), network.forward):
        with pytest.raises(UserError, match=r"in training mode: call (network|self).eval\(\) first"):
            autoattack(function, images, labels, eps=0.1, attacks="pgd")


@pytest.mark.parametrize("eps", [8 / 255, np.float32(8 / 255), torch.tensor(8 / 255), "8/255"])
def test_a_radius_is_written_in_gray_levels(eps: float) -> None:
    images, model = torch.rand(2, 1, 2, 2), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4))
    result = autoattack(model, images, torch.tensor([0, 1]), eps=eps, attacks="pgd")
    assert result.record(method="m", dataset="d", architecture="a").eps_text == "8/255"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.rand(3, 2, 2)}, "images must be .N, C, H, W."),
        ({"images": torch.full((2, 1, 2, 2), 255.0)}, "divide by 255"),
        ({"images": torch.rand(2, 1, 2, 2).double()}, "float32"),
        ({"labels": torch.zeros(2)}, "labels must be whole numbers"),
        ({"labels": torch.tensor([0, 4])}, "from 0 to 3"),
        ({"model": torch.nn.Flatten(0)}, "must return logits"),
        ({"eps": 8}, "eps=8 is outside"),
        ({"norm": "L7"}, "norm must be one of"),
        ({"attacks": "fgsm"}, "attacks=fgsm"),
        ({"tolerance": 1.0}, "tolerance=1 is a setting"),
        ({"batch_size": 0}, "batch_size"),
        ({"model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)), "attacks": "fast"}, "4 classes"),
        (
            {"model": lambda x: x.flatten(1)[:, :1], "labels": torch.tensor([0, 0]), "attacks": ["square"]},
            "square compares two logits, .* has 1; give it one logit per class",
        ),
        ({"model": lambda x: x.sub_(0.5).flatten(1)}, "changes its input in place: write x = x - mean"),
        ({"images": np.zeros((2, 1, 2, 2), np.uint8)}, "images must be a tensor, not ndarray"),
        ({"labels": torch.tensor([True, False])}, "labels must be whole numbers"),
        ({"norm": "L2"}, "square for L2 needs images of at least 5 x 5 pixels, not 2 x 2"),
        ({"device": "cuda:99"}, "device=cuda:99 is .*: use auto, cpu or cuda"),
        ({"model": torch.nn.Linear(7, 7)}, r"cannot classify an image \[1, 2, 2\] on cpu"),
    ],
)
def test_a_call_that_cannot_work_is_refused(changes: dict[str, object], message: str) -> None:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 4))
    call = {"model": model, "images": torch.rand(2, 1, 2, 2), "labels": torch.tensor([0, 1]), "eps": 0.1} | changes
    with pytest.raises(UserError, match=message):
        autoattack(**call)


def test_the_example_in_its_docstring() -> None:
    assert doctest.testmod(tensors).attempted == 5
    assert doctest.testmod(tensors).failed == 0

"""``autoattack`` on tensors: the flags and the record of ``dkl evaluate``, on any callable and memory format."""

import doctest
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dkl.cli import main
from dkl.data import digits
from dkl.errors import UserError
from dkl.evaluation import autoattack, tensors
from dkl.models import create_model, load_checkpoint
from dkl.records import load, load_flags
from dkl.threat import SUITES
from tests.evaluation.common import evaluate_run, shorten, shorten_package, some_digits, tiny_run, trained


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
    assert not any(attacked(lambda x: -trained()(x), 0.01))
    assert len(list(tmp_path.glob("*/*.npz"))) == 5  # functions of other logits are kept apart


def test_progress_belongs_to_what_a_network_computes(tmp_path: Path) -> None:
    images, labels = some_digits(20)

    class Defense(nn.Module):
        """A network that keeps its weights, and whose attributes and hooks change its logits."""

        def __init__(self, factor: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.net, self.factor, self.queries = trained(), factor, 0

        def forward(self, x: Tensor) -> Tensor:
            self.queries += len(x)
            return self.net(self.factor(x))

    def attacked(model: nn.Module, folder: Path | None = tmp_path) -> list[bool]:
        return autoattack(model, images, labels, eps=0.1, attacks=["pgd-2"], folder=folder).robust.tolist()

    turned = Defense(nn.Identity())
    turned.register_forward_pre_hook(lambda module, given: (1 - given[0],))
    defenses = [Defense(partial(torch.mul, other=factor)) for factor in (1.0, 0.5)] + [turned]
    for _ in range(2):
        assert [attacked(model) for model in defenses] == [attacked(model, None) for model in defenses]
    assert len(list(tmp_path.glob("*/*.npz"))) == 3

    def queries() -> int:
        before = defenses[0].queries
        attacked(defenses[0])
        return defenses[0].queries - before

    assert queries() == queries()  # a count of calls does not make it another network


def test_the_callers_random_numbers_are_not_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, steps=3, queries=10)
    shorten_package(monkeypatch)
    images, labels = some_digits(4)
    state = torch.get_rng_state()
    autoattack(trained(), images, labels, eps=0.1, norm="L2", attacks=["square", "fab"], batch_size=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_in_training_mode_is_refused_before_its_statistics_move() -> None:
    images, labels = some_digits(4)
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))

    class Hidden:
        """An object that is no module, or a module that does not know its network."""

        def __init__(self) -> None:
            self.parts = {"networks": [network]}

        def __call__(self, x: Tensor) -> Tensor:
            return self.parts["networks"][0](x)

    class HiddenInModule(Hidden, nn.Module):
        def __init__(self) -> None:
            nn.Module.__init__(self)
            Hidden.__init__(self)

    functions = [lambda x: network(x / 2), network.forward, Hidden(), HiddenInModule(), Hidden().__call__]
    for function in functions:
        with pytest.raises(UserError, match=r"network in training mode, \w+: call the eval\(\) of that network first"):
            autoattack(function, images, labels, eps=0.1, attacks="pgd")
    assert network.training
    assert int(network[1].num_batches_tracked) == 0
    network.eval()
    for function in functions:
        autoattack(function, images, labels, eps=0.1, attacks=["pgd-1"])


def test_what_a_network_raises_is_reported_as_its_own() -> None:
    images, labels = some_digits(4)

    class Failing(nn.Module):
        """Fails by ``error`` in call ``last``."""

        def __init__(self, error: BaseException, last: int) -> None:
            super().__init__()
            self.error, self.calls_left = error, last

        def forward(self, x: Tensor) -> Tensor:
            self.calls_left -= 1
            if not self.calls_left:
                raise self.error
            return trained()(x)

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(context: object, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :10]

        @staticmethod
        def backward(context: object, gradient: Tensor) -> Tensor:
            raise LookupError("no\ngradient")

    models = {
        r"an image \[1, 8, 8\] on cpu: ValueError: bad$": Failing(ValueError("bad\nworse"), 1),
        r"images \[2, 1, 8, 8\] on cpu: KeyError: 'bad'$": Failing(KeyError("bad"), 2),
        "on cpu: AssertionError$": Failing(AssertionError(), 50),
        "SystemExit: 3$": Failing(SystemExit(3), 60),
        "^the model's gradient cannot be computed: LookupError: no$": Backward.apply,
    }
    for message, model in models.items():
        with pytest.raises(UserError, match=message):
            autoattack(model, images, labels, eps=0.1, attacks=["apgd-ce"])


@pytest.mark.parametrize("precision", [torch.float16, torch.float64])
def test_logits_of_another_precision_are_cast(precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, steps=3, queries=10)
    shorten_package(monkeypatch)
    images, labels = some_digits(4)
    for norm, eps, attacks in [("L2", 0.3, "standard"), ("L1", 2.0, ["apgd-t"]), ("Linf", 0.06, ["apgd-dlr", "fab"])]:
        options = {"eps": eps, "norm": norm, "attacks": attacks, "batch_size": 4}
        cast = autoattack(lambda x: trained()(x).to(precision).float(), images, labels, **options)
        given = autoattack(lambda x: trained()(x).to(precision), images, labels, **options)
        assert all(torch.equal(cast.flags[name], given.flags[name]) for name in cast.flags)


def test_a_network_that_changes_during_the_attacks() -> None:
    images, labels = some_digits(20)
    calls = iter(range(100_000))
    result = autoattack(lambda x: trained()(x).roll(next(calls) // 60, 1), images, labels, eps=0.01, attacks=["pgd-50"])
    assert "clean images are classified in another way after the attacks than before" in result.warnings[-1]
    record = result.record(method="mine", dataset="digits", architecture="CNN")
    assert record.warnings == result.warnings


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
        ({"model": lambda x: x.sub_(0.5).flatten(1)}, "changes its images in place: write x = x - mean"),
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
    assert doctest.testmod(tensors).attempted == 4
    assert doctest.testmod(tensors).failed == 0

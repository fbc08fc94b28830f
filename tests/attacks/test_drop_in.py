"""``dkl.attacks.AutoAttack`` is the class that people call: same arguments, attributes, flags and printed lines."""

import io
import re
import runpy
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from pyautoattack import AutoAttack as Package
from pyautoattack import checks
from torch import Tensor, nn

from dkl.attacks import AutoAttack, compare
from dkl.attacks.autoattack import bounded as bounded_attacks
from dkl.attacks.autoattack import drop_in
from dkl.errors import UserError

COUNT, BATCH, CLASSES = 30, 12, 5
LINF: dict[str, Any] = {"eps": 0.03, "seed": 3, "verbose": False}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(384, CLASSES)]
    return nn.Sequential(*layers).eval()


def data(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images of which the network misclassifies every tenth."""
    x = torch.rand(COUNT, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    y = model(x).argmax(1)
    y[::10] = (y[::10] + 1) % CLASSES
    return x, y.detach()


def package(model: nn.Module, norm: str = "Linf", eps: float = 0.3, seed: int | None = None, **options: Any) -> Package:
    """The authors' class by its arguments; the published package has renamed some and left out others."""
    attacks = options.pop("attacks_to_run", None)
    for unused in ("verbose", "device", "log_path"):
        options.pop(unused, None)
    found = Package(model, attacks=attacks, norm=norm, eps=eps, seed=seed, **options)
    found.set_version = found._set_version
    return found


def shortened(adversary: Any) -> Any:
    """Fewer steps and queries, as people set them."""
    adversary.apgd.n_iter = adversary.apgd_targeted.n_iter = adversary.fab.n_iter = 6
    adversary.square.n_queries = 40
    adversary.apgd_targeted.n_target_classes = adversary.fab.n_target_classes = CLASSES - 1
    return adversary


def one_restart(adversary: Any) -> None:
    adversary.apgd.n_restarts = adversary.fab.n_restarts = adversary.apgd_targeted.n_restarts = 1


def two_attacks(adversary: Any) -> None:
    adversary.attacks_to_run = ["apgd-ce", "apgd-t"]


def fewer_targets(adversary: Any) -> None:
    adversary.apgd_targeted.n_target_classes = 2
    adversary.apgd_targeted.n_restarts = 2
    adversary.apgd.n_iter = 30


def restarts_of_square(adversary: Any) -> None:
    adversary.square.n_restarts, adversary.attacks_to_run = 2, ["square"]


PATTERNS: dict[str, tuple[dict[str, Any], Callable[[Any], object]]] = {
    "standard": ({"norm": "Linf", "eps": 0.03, "version": "standard"}, lambda adversary: None),
    "L2": ({"norm": "L2", "eps": 0.25, "version": "standard"}, lambda adversary: None),
    "L1": ({"norm": "L1", "eps": 2.0, "version": "standard"}, lambda adversary: None),
    "plus": ({"norm": "Linf", "eps": 0.03, "version": "plus"}, lambda adversary: None),
    "rand": ({"norm": "Linf", "eps": 0.03, "version": "rand"}, lambda adversary: None),
    "custom in the constructor": (
        {"eps": 0.03, "version": "custom", "attacks_to_run": ["apgd-ce", "apgd-dlr"]},
        one_restart,
    ),
    "attacks set later": ({"norm": "Linf", "eps": 0.03, "version": "standard", "device": "cpu"}, two_attacks),
    "targets, restarts and steps": ({"eps": 0.03, "version": "custom", "attacks_to_run": ["apgd-t"]}, fewer_targets),
    "restarts of square": ({"eps": 0.03}, restarts_of_square),
    "untargeted fab": ({"eps": 0.03, "version": "custom", "attacks_to_run": ["fab"]}, one_restart),
    "averaged gradients": ({"eps": 0.03}, lambda adversary: setattr(adversary.apgd, "eot_iter", 2)),
    "set_version": ({"eps": 0.03, "verbose": True}, lambda adversary: adversary.set_version("rand")),
    "radius of one attack": (
        {"eps": 0.03, "version": "custom", "attacks_to_run": ["apgd-ce"]},
        lambda adversary: setattr(adversary.apgd, "eps", 0.01),
    ),
}


@pytest.mark.parametrize(
    "pattern", [pytest.param("L1", marks=pytest.mark.slow), *(name for name in PATTERNS if name != "L1")]
)
def test_call_patterns_give_the_packages_flags(pattern: str) -> None:
    arguments, change = PATTERNS[pattern]
    model = network()
    x, y = data(model)
    theirs, ours = (make(model, seed=3, **arguments) for make in (package, AutoAttack))
    for adversary in (theirs, ours):
        shortened(adversary)
        change(adversary)
        if pattern == "set_version":
            shortened(adversary)
    expected, predicted = theirs.run_standard_evaluation(x, y, batch_size=BATCH)
    with torch.no_grad():  # as 17 of 52 repositories call it
        x_adv, labels = ours.run_standard_evaluation(x, y, bs=BATCH, return_labels=True)
    assert (x_adv.shape, x_adv.dtype, labels.shape) == (expected.shape, expected.dtype, predicted.shape)
    assert torch.equal(labels == y, predicted == y)
    assert torch.equal(model(x_adv).argmax(1), labels)
    assert torch.equal(x_adv[::10], x[::10])  # misclassified before
    assert torch.equal(ours.flags[ours.attacks_to_run[-1]], labels == y)
    assert 0 < (labels == y).sum() < 27
    order = {"Linf": torch.inf, "L2": 2, "L1": 1}[ours.norm]
    moved = torch.linalg.vector_norm((x_adv.double() - x.double()).flatten(1), ord=order, dim=1)
    assert float(moved.max()) <= arguments["eps"] * (1 if ours.norm != "L1" else 1 + 1e-6)


def test_it_prints_and_logs_the_packages_lines(tmp_path: Path) -> None:
    model, printed = network(), io.StringIO()
    x, y = data(model)
    with redirect_stdout(printed):
        adversary = AutoAttack(model, eps=0.03, seed=3, log_path=tmp_path / "log.txt")
        shortened(adversary).run_standard_evaluation(x, y, bs=BATCH)
        adversary.clean_accuracy(x, y, bs=BATCH)
    lines = printed.getvalue().splitlines()
    assert (tmp_path / "log.txt").read_text().splitlines() == lines
    assert lines[:3] == [
        "setting parameters for standard version",
        "using standard version including apgd-ce, apgd-t, fab-t, square.",
        "initial accuracy: 90.00%",
    ]
    robust = adversary.flags["square"].double().mean()
    assert re.fullmatch(r"apgd-ce - 1/3 - \d+ out of 12 successfully perturbed", lines[3])
    assert re.fullmatch(r"robust accuracy after APGD-CE: \d+\.\d\d% \(total time \d+\.\d s\)", lines[6])
    assert re.fullmatch(r"max Linf perturbation: 0.03000, nan in tensor: 0, max: [\d.]+, min: [\d.]+", lines[-3])
    assert lines[-2:] == [f"robust accuracy: {robust:.2%}", "clean accuracy: 90.00%"]


def test_each_attack_alone_and_the_parts_themselves() -> None:
    model = network()
    x, y = data(model)
    adversary = shortened(AutoAttack(model, eps=0.03, seed=3, verbose=False))
    found = adversary.run_standard_evaluation_individual(x, y, bs=BATCH)
    assert list(found) == adversary.attacks_to_run == ["apgd-ce", "apgd-t", "fab-t", "square"]
    for name, x_adv in found.items():
        assert torch.equal(model(x_adv).argmax(1) == y, adversary.flags[name])
    theirs = shortened(package(model, eps=0.03, seed=3))
    for part in ("apgd", "apgd_targeted", "fab", "square"):
        expected = getattr(theirs, part).perturb(x, y)
        x_adv = getattr(adversary, part).perturb(x, y)
        assert torch.equal(model(x_adv).argmax(1) == y, model(expected).argmax(1) == y), part
    alone = adversary.apgd.perturb
    assert torch.equal(alone(x), alone(x, model(x).argmax(1)))  # without labels: the predicted classes
    assert float(adversary.get_seed()) == 3
    assert torch.equal(adversary.get_logits(x), model(x))


class Killed(BaseException):
    """As a signal that kills the process."""


@pytest.mark.parametrize("seed", [3, None])
def test_killed_and_resumed_it_returns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    model = network()
    x, y = data(model)
    options = {"eps": 0.03, "verbose": False, "images_together": 1}
    monkeypatch.setattr(drop_in.time, "time", lambda: 7)
    alone = shortened(AutoAttack(model, seed=seed, **options)).run_standard_evaluation(x, y, bs=BATCH)
    observe, calls = drop_in.AttackReport.observe, []

    def dies(self: Any, batch: Any) -> None:
        calls.append(batch.attack)
        if len(calls) in (3, 7, 9):
            raise Killed
        observe(self, batch)

    monkeypatch.setattr(drop_in.AttackReport, "observe", dies)
    for _ in range(3):
        with pytest.raises(Killed):
            shortened(AutoAttack(model, seed=seed, **options)).run_standard_evaluation(
                x, y, bs=BATCH, state_path=tmp_path
            )
        monkeypatch.setattr(drop_in.time, "time", lambda: 8)
    adversary = shortened(AutoAttack(model, seed=seed, resume=tmp_path, **options))
    resumed, labels = adversary.run_standard_evaluation(x, y, bs=BATCH, return_labels=True)
    assert torch.equal(resumed, alone)
    assert torch.equal(model(resumed).argmax(1), labels)
    finished = len(calls)
    again = shortened(AutoAttack(model, seed=seed, resume=tmp_path, **options)).run_standard_evaluation(x, y, bs=BATCH)
    assert torch.equal(again, alone)
    assert len(calls) == finished


def test_bounded_holds_the_standard_accuracy(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network()
    x, y = data(model)
    standard = shortened(AutoAttack(model, eps=0.03, seed=3, verbose=False))
    standard.run_standard_evaluation(x, y, bs=BATCH)
    printed = io.StringIO()
    with redirect_stdout(printed):
        bounded = shortened(AutoAttack(model, eps=0.03, seed=3, tolerance=60))
        bounded.run_standard_evaluation(x, y, bs=BATCH)
    low, high = map(float, re.search(r"robust accuracy: ([\d.]+)% to ([\d.]+)%", printed.getvalue()).groups())
    assert low <= round(100 * float(standard.flags["square"].double().mean()), 2) <= high
    assert 0 < bounded.flags["sampled"].sum() < bounded.flags["apgd-t"].sum()

    # If a pass of a few images takes as long as one of all, every image is attacked.
    monkeypatch.setattr(bounded_attacks, "pass_seconds", lambda model, x: 1.0)
    with redirect_stdout(printed):
        bounded.run_standard_evaluation(x, y, bs=BATCH)
    assert printed.getvalue().splitlines()[-1] == f"robust accuracy: {standard.flags['square'].double().mean():.2%}"
    assert list(bounded.flags) == list(standard.flags)
    assert all(torch.equal(bounded.flags[name], flags) for name, flags in standard.flags.items())


def run(x: Any = None, y: Any = None, bs: int = 4, **options: Any) -> object:
    model = options.pop("model", network())
    images, labels = data(network())
    adversary = AutoAttack(model, **({"eps": 0.03, "seed": 0, "verbose": False} | options))
    return adversary.run_standard_evaluation(images[:8] if x is None else x, labels[:8] if y is None else y, bs=bs)


@pytest.mark.parametrize(
    ("call", "fix"),
    [
        (lambda: run(x=torch.rand(8, 3, 8, 8) * 2 - 1), "normalize inside the model"),
        (lambda: run(x=torch.rand(8, 3, 8, 8).half()), "convert them"),
        (lambda: run(x=torch.rand(8, 3, 8, 8).numpy()), "torch.as_tensor"),
        (lambda: run(x=torch.rand(8, 20)), r"must be \[N, C, H, W\]"),
        (lambda: run(y=torch.full((8,), 5)), "from 0 to 4"),
        (lambda: run(y=torch.zeros(8)), "whole numbers"),
        (lambda: run(bs=0), "at least 1"),
        (lambda: run(images_together=-1), "images_together=-1 must be"),
        (lambda: run(images_together=0), "images_together=0 must be"),
        (lambda: run(norm="l3"), "norm must be one of linf, l2, l1"),
        (lambda: run(eps="8/0"), "8/255"),
        (lambda: run(eps=8), "write 8/255"),
        (lambda: run(version="standart"), "did you mean standard"),
        (lambda: run(version="custom"), "give attacks_to_run"),
        (lambda: run(attacks_to_run=["apgd-ce"]), "version='custom'"),
        (lambda: run(version="custom", attacks_to_run=["apgd_ce"]), "did you mean apgd-ce"),
        (lambda: run(is_tf_model=True), "PyTorch"),
        (lambda: run(model=nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), y=torch.zeros(8).long()), "use attacks="),
        (lambda: run(model="model"), "module or a function"),
        (lambda: run(tolerance=5, version="rand"), "tolerance="),
        (lambda: run(tolerance=float("nan")), "above 0 and at most 100"),
        (lambda: run(tolerance="1"), "above 0 and at most 100"),
        (lambda: run(seed="abc"), "from 0 to 4294967295"),
        (lambda: run(seed=-1), "from 0 to 4294967295"),
        (lambda: run(log_path="no/folder/log.txt"), "make it first"),
        (lambda: AutoAttack(network(), verbose=False).clean_accuracy(*data(network()), bs=0), "at least 1"),
        (lambda: run(device="cuda:99"), "use auto, cpu or cuda"),
        (lambda: setattr(AutoAttack(network()).apgd, "n_restart", 1), "did you mean n_restarts"),
        (lambda: setattr(AutoAttack(network()).apgd, "n_iter", "100"), "whole number"),
        (lambda: setattr(AutoAttack(network()).apgd, "rho", "a"), "rho='a' must be a number"),
        (lambda: AutoAttack(network()).apgd.perturb(torch.rand(8, 3, 8, 8) * 255), "divide by 255"),
        (lambda: torch.inference_mode()(run)(), "inference_mode"),
    ],
)
def test_a_mistake_is_reported_in_one_line_before_any_attack(call: Callable[[], object], fix: str) -> None:
    with pytest.raises(UserError, match=fix) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_the_checks_warn_of_what_the_packages_checks_warn_of() -> None:
    model = nn.Sequential(network(), nn.Softmax(dim=1)).eval()
    x, y = data(network())
    adversary = AutoAttack(model, eps=0.03, seed=0, version="custom", attacks_to_run=["apgd-ce"], verbose=False)
    shortened(adversary).run_standard_evaluation(x, y, bs=BATCH)
    assert "remove the softmax" in " ".join(adversary.warnings)
    with pytest.warns(Warning, match="probability distribution"):
        checks.check_range_output(model, x)


class Steep(nn.Module):
    """The network times ``factor`` squared, with ``added`` of the images, whose gradient may not be finite."""

    def __init__(self, factor: float = 1.0, added: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.network, self.factor, self.added = network(), factor, added

    def forward(self, x: Tensor) -> Tensor:
        logits = self.network(x) * self.factor**2
        return logits if self.added is None else logits + self.added(x)


def test_progress_belongs_to_the_weights_and_to_what_is_done_with_them(tmp_path: Path) -> None:
    x, y = data(network())
    options: dict[str, Any] = {"version": "custom", "attacks_to_run": ["apgd-ce"], "resume": tmp_path, **LINF}
    models = [Steep(), Steep(1e-3), Steep(added=lambda x: x.flatten(1)[:, :CLASSES]), network()]
    for folders, model in enumerate(models, 1):
        for _ in range(2):  # the second call finds the first one's progress
            adversary = shortened(AutoAttack(model, **options))
            adversary.run_standard_evaluation(x, y, bs=BATCH)
        alone = shortened(AutoAttack(model, **{**options, "resume": None}))
        alone.run_standard_evaluation(x, y, bs=BATCH)
        assert torch.equal(adversary.flags["apgd-ce"], alone.flags["apgd-ce"])
        assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == folders
    (tmp_path / "seed.txt").write_text("x")
    with pytest.raises(UserError, match="is damaged"):
        AutoAttack(models[0], **{**options, "seed": None}).run_standard_evaluation(x, y, bs=BATCH)


def test_gradients_that_are_not_finite_are_named() -> None:
    x, y = data(network())
    model = Steep(added=lambda x: 0 * (x - x).flatten(1).sum(1, keepdim=True).sqrt())
    options: dict[str, Any] = {"version": "custom", "attacks_to_run": ["apgd-ce"], **LINF}
    adversary = shortened(AutoAttack(model, **options))
    adversary.run_standard_evaluation(x, y, bs=BATCH)
    assert "have a gradient that is not finite" in " ".join(adversary.warnings)
    with pytest.raises(UserError, match="make the gradients of the network finite"):
        shortened(AutoAttack(model, norm="L2", **options)).run_standard_evaluation(x, y, bs=BATCH)


def test_logits_that_are_not_finite_are_no_correct_answer() -> None:
    x, _ = data(network())
    model = Steep(factor=float("nan"))
    assert AutoAttack(model, **LINF).clean_accuracy(x, torch.zeros(COUNT, dtype=torch.int64)) == 0


def make_network() -> nn.Module:
    """For ``python -m dkl.attacks.compare``."""
    return network()


def test_the_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / "autoattack.py"))["main"](12, 2, 6)
    assert "the same images: True" in capsys.readouterr().out


def test_the_command_compares_both_on_a_network_of_yours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x, y = data(network())
    torch.save({"images": x, "labels": y}, tmp_path / "images.pt")
    options = [f"images={tmp_path / 'images.pt'}", "eps=8/255", "n=20", "batch_size=8", "steps=4", "queries=20"]
    assert compare.main([f"model={__name__}:make_network", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("package s    ours s   floor s     ratio")
    assert [line.split()[0] for line in lines[1:-1]] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert lines[-1].startswith("0 of ")
    found = compare.compare(network(), x[:8], y[:8], norm="L1", eps=2.0, batch_size=5, steps=3, queries=10)
    assert set(found.differing.values()) == {0}
    mistakes = {
        "eps=x": "8/255",
        "versoin=rand": "did you mean version",
        "images=no.pt": "torch.save",
        "n=0": "at least 1",
    }
    for wrong, fix in {**mistakes, f"images={__file__}": "torch.save"}.items():
        with pytest.raises(UserError, match=fix):
            compare.main([f"model={__name__}:make_network", *options, wrong])
    with pytest.raises(UserError, match="none of the images correctly"):
        compare.compare(network(), x, network()(x).argmin(1))


def test_the_floor_is_the_passes_that_are_made_at_the_time_of_the_fullest(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 5.0] * 4 + [0.0, 12.0] * 4)  # a pass takes 5 s, with gradients 12 s
    monkeypatch.setattr(compare.time, "process_time", lambda: next(clock))
    model = network()
    with compare.Passes(model) as passes:
        for count in (1, 4, 3):
            model(torch.zeros(count, 3, 8, 8))
        with torch.no_grad():
            model(torch.zeros(2, 3, 8, 8))
    assert passes.floor(torch.zeros(2, 3, 8, 8)) == (2 * 5 + 8 * 12) / 4


def test_memory_that_runs_out_halves_what_is_attacked_together() -> None:
    class Small(nn.Module):
        """A device on which six images with gradients fit."""

        def __init__(self) -> None:
            super().__init__()
            self.network, self.sizes = network(), set[int]()

        def forward(self, x: Tensor) -> Tensor:
            self.sizes.add(len(x))
            if len(x) > 6 and x.requires_grad:
                raise torch.OutOfMemoryError("out of memory")
            return self.network(x)

    x, y = data(network())
    alone, together = (
        shortened(AutoAttack(network(), images_together=3, **LINF)),
        shortened(AutoAttack(Small(), **LINF)),
    )
    for adversary in (alone, together):
        adversary.run_standard_evaluation(x, y, bs=3)
    assert all(torch.equal(flags, alone.flags[name]) for name, flags in together.flags.items())
    assert {27, 12, 6} <= together.model.sizes
    bounded = shortened(AutoAttack(Small(), tolerance=50, **LINF))
    bounded.run_standard_evaluation(x, y, bs=3)
    assert all(torch.equal(flags, alone.flags[name]) for name, flags in bounded.flags.items() if name == "apgd-ce")

"""An attack of your own, written outside the package, goes from the command to the table under its name."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dkl.cli import main
from dkl.config import EvaluateConfig, EvaluationConfig
from dkl.errors import UserError
from dkl.evaluation import autoattack
from dkl.evaluation.protocol import choose_protocol
from dkl.reporting.grouping import attacks_label
from dkl.threat import AUTOATTACK, is_own
from tests.docs.pages import ROOT, blocks
from tests.evaluation.common import evaluate_run, shorten, some_digits, tiny_run, trained

(FGSM,) = (block.text for block in blocks(ROOT / "docs" / "evaluation.md") if block.title == "`my_attack.py`:")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with ``my_attack.py``, which is forgotten afterwards."""
    (tmp_path / "my_attack.py").write_text(FGSM)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("my_attack", None)


def test_it_goes_from_the_command_to_the_table_and_is_verified_only_if_it_is_named(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tiny_run(folder / "run", "trainer.epochs=2")
    options = ("eps=0.05", "batch_size=16")
    record, flags = evaluate_run(run, folder / "one", "attacks=[pgd-2,my_attack:fgsm]", *options)
    assert record.attacks == ["pgd-2", "my_attack:fgsm"]
    assert 0 < flags["my_attack:fgsm"].mean() == record.robust < flags["pgd-2"].mean()
    assert len(record.versions["my_attack:fgsm"]) == 12
    again, _ = evaluate_run(run, folder / "two", "attacks=[pgd-2,my_attack:fgsm]", *options)
    assert (again.id, again.robust) == (record.id, record.robust)
    main(["tables", f"results={folder / 'one'}"])
    assert "pgd-2 + my_attack:fgsm (not AutoAttack)" in capsys.readouterr().out

    # A record may come from anyone, so the code that it names is not imported.
    sys.modules.pop("my_attack")
    verify = ["verify", str(next(folder.glob("one/records/*.json"))), f"run={run}", "n=40", f"paths.results={folder}"]
    with pytest.raises(SystemExit):
        main([*verify, "threads=1"])
    assert "name it yourself, attacks=[my_attack:fgsm]" in capsys.readouterr().err
    assert "my_attack" not in sys.modules
    with pytest.raises(SystemExit):
        main([*verify, "attacks=[my_attack:fgsm,square]"])
    assert "was not attacked by square" in capsys.readouterr().err
    main([*verify, "threads=1", "attacks=[my_attack:fgsm]"])
    assert "my_attack" in sys.modules

    # Edited code makes another record.
    sys.modules.pop("my_attack")
    (folder / "my_attack.py").write_text(FGSM.replace("eps * gradient", "0.9 * eps * gradient"))
    edited, _ = evaluate_run(run, folder / "three", "attacks=[pgd-2,my_attack:fgsm]", *options)
    assert edited.id != record.id


def test_a_run_cannot_choose_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tiny_run(folder / "run", "trainer.epochs=1")
    for command in (["train", "data=digits", "evaluation.attacks=[my_attack:fgsm]"], ["evaluate", f"run={run}"]):
        text = (run / "config.yaml").read_text()
        (run / "config.yaml").write_text(text.replace("attacks: standard", "attacks: my_attack:fgsm"))
        with pytest.raises(SystemExit):
            main(command)
        assert "runs only if you name it yourself: dkl evaluate attacks=[my_attack:fgsm]" in capsys.readouterr().err
    assert "my_attack" not in sys.modules


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nothing:fgsm", "attacks=nothing:fgsm: there is no module 'nothing'"),
        ("my_attack:fsgm", "my_attack has no 'fsgm': did you mean fgsm?"),
        ("my_attack:__name__", "attacks=my_attack:__name__ is a str: name a function (model, images, labels"),
        ("my_attack:F.softmax", "attack my_attack:F.softmax must take (model, images, labels, *, norm, eps, seed)"),
    ],
)
def test_what_is_no_attack_is_refused_before_any_work(name: str, message: str, folder: Path) -> None:
    with pytest.raises(UserError) as refused:
        choose_protocol(EvaluateConfig(attacks=[name]), EvaluationConfig(eps="8/255"))
    assert message in str(refused.value)


def moved(by: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    """An attack that returns ``by(images)``."""

    def attack(model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        return by(images)

    return attack


@pytest.mark.parametrize(
    ("attack", "norm", "message"),
    [
        (moved(lambda x: (x + 0.2).clamp(0, 1)), "Linf", "moves an image by 0.2 in linf, more than eps=0.1: project"),
        (moved(lambda x: (x + 0.05).clamp(0, 1)), "L2", "in l2, more than eps=0.1"),
        (moved(lambda x: (x + 0.05).clamp(0, 1)), "L1", "in l1, more than eps=0.1"),
        (moved(lambda x: x - 0.1), "Linf", r"images in \[-0.1, .*\], not in \[0, 1\]: clamp them"),
        (moved(lambda x: x * torch.nan), "Linf", "returns NaN"),
        (moved(lambda x: x[:1]), "Linf", r"must return images \[10, 1, 8, 8\], not \[1, 1, 8, 8\]"),
        (moved(lambda x: x.tolist()), "Linf", "not list"),
        (moved(lambda x: x.nothing), "Linf", "fails: AttributeError"),
        (lambda model, images, labels: images, "Linf", "must take .model, images, labels, .*norm, eps, seed"),
    ],
)
def test_what_leaves_the_ball_or_the_box_is_an_error_that_names_the_attack(
    attack: Callable[..., Tensor], norm: str, message: str
) -> None:
    with pytest.raises(UserError, match=rf"attack tests\S+test_own_attacks:\S+ .*{message}"):
        autoattack(trained(), *some_digits(10), eps=0.1, norm=norm, attacks=[attack])


def test_functions_are_attacks_on_tensors_and_never_called_autoattack(monkeypatch: pytest.MonkeyPatch) -> None:
    shorten(monkeypatch, steps=2, queries=3)
    images, labels = some_digits(12)
    seen: list[tuple[int, float, str, int]] = []

    def identity(model: nn.Module, images: Tensor, labels: Tensor, *, norm: str, eps: float, seed: int) -> Tensor:
        seen.append((len(images), eps, norm, seed))
        return images

    state = torch.get_rng_state()
    random = moved(lambda x: (x + 0.02 * torch.rand(x.shape)).clamp(0, 1))
    result = autoattack(
        trained(), images, labels, eps=0.02, attacks=[*AUTOATTACK, identity, random], batch_size=8, seed=5
    )
    assert torch.equal(torch.get_rng_state(), state)
    first, again = (autoattack(trained(), images, labels, eps=0.02, attacks=[random]) for _ in range(2))
    assert torch.equal(first.robust, again.robust)
    name = result.attacks[-2]
    assert is_own(name)
    assert name.endswith("identity")
    assert torch.equal(result.flags[name], result.flags["square"])
    count = int(result.flags["square"].sum())
    assert [row[0] for row in seen] == [size for size in (min(8, count), max(0, count - 8)) if size]
    assert seen[0][1:] == (0.02, "linf", 5)
    record = result.record(method="mine", dataset="digits", architecture="CNN")
    assert not record.is_autoattack
    assert attacks_label(record).endswith("(not AutoAttack)")

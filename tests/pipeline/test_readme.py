"""Every command and every line of Python that the README shows works as printed, made small."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dkl.cli import main
from dkl.cli.help import choices

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)
LINES = [line.split("#")[0].strip() for kind, text in BLOCKS if kind == "bash" for line in text.splitlines()]
DKL = [line for line in LINES if line.startswith("dkl ")]
SMALL = ["trainer.epochs=1", "trainer.threads=1", "budget=smoke"]
OWN_FILES = [*SMALL[:2], "model=small_cnn", "data.train_size=20", "data.test_size=10"]  # smoke makes images itself


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the README's reader has by then: CIFAR as .npz, a run, foreign weights, their own .npz."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DKL_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("DKL_RESULTS_DIR", raising=False)
    for name, classes in (("data/cifar10", 10), ("data/cifar100", 100), (".", 10)):
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        for split, count in (("train", 200), ("test", 100)):
            images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
            np.savez(folder / f"{split}.npz", image=images, label=np.arange(count) % classes)
    for part in range(1, 5):
        np.savez(tmp_path / f"data/cifar100/50m_part{part}.npz", image=images, label=np.arange(100))
    return tmp_path


def small(line: str, folder: Path) -> list[str]:
    """The words of a README command, with sizes that a test can afford and names that exist here."""
    words = [word for word in shlex.split(line)[1:] if word != "budget=paper"]
    if words[0] == "train":
        words += [*(OWN_FILES if "data=npz" in words else SMALL), "trainer.workers=0"]
    if words[0] == "reproduce":
        words += ["trainer.threads=1", "budget=smoke"]
    if words[0] == "evaluate":
        run = next(iter(sorted((folder / "results" / "runs").glob("generated-*"))), None)
        words = [f"run={run}" if word == "run=results/runs/NAME" else word for word in words]
        words = ["model=small_cnn" if word == "model=wrn34_10" else word for word in words]
        words = ["devices=2" if word == "devices=4" else word for word in words]
        words += ["attacks=pgd"] if "-m" in words else []
        words += ["threads=1", "n=8"] if "n=1000" not in words else ["n=8"]
    return [word for word in words if word != "n=1000"]  # more than there are here


def prepare(line: str) -> None:
    if "run=results/runs/NAME" in line or line.startswith("dkl tables"):
        main(["train", *SMALL])
    if line.startswith("dkl tables"):
        run = next(Path("results/runs").glob("generated-*"))
        config = (run / "config.yaml").read_text().replace("name: smoke", "name: own")
        (run / "config.yaml").write_text(config)
        main(["evaluate", f"run={run}", "attacks=pgd", "n=8"])
    if "checkpoint=" in line:
        from dkl.models import create_model

        torch.save({"state_dict": create_model("small_cnn", 100).state_dict()}, "weights.pt")


@pytest.mark.parametrize("line", [line for line in DKL if "--help" not in line])
def test_dkl_commands_run(line: str, elsewhere: Path) -> None:
    prepare(line)
    main(small(line, elsewhere))
    assert (elsewhere / "results").is_dir() != ("dry_run=true" in line)


def test_make_commands_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+%?):", (ROOT / "Makefile").read_text(), re.M))
    named = {re.sub(r"-\d+$", "-%", line.split()[1]) for line in LINES if line.startswith("make ")}
    assert {"quickstart", "test", "reproduce-table-%", "reproduce-figure-%"} <= named <= targets


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make quickstart", "make test", "make check"} <= set(script)


def test_the_loss_in_someone_elses_loop() -> None:
    block = next(text for kind, text in BLOCKS if kind == "python")
    model, before = nn.Linear(5, 100), None
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loader = [(torch.rand(4, 5), torch.randint(100, (4,))) for _ in range(2)]
    before = model.weight.detach().clone()
    scope = {"model": model, "optimizer": optimizer, "loader": loader, "F": F, "attack": lambda m, x, y: x + 0.1}
    exec(block, scope)
    assert not torch.equal(before, model.weight)
    assert scope["loss"].isfinite()


def test_tables_of_choices_name_what_there_is() -> None:
    for group in ("data", "model", "loss", "attack", "averaging", "recipe", "task", "budget", "logger"):
        row = re.search(rf"^\| `{group}` \| (.*) \|$", README, re.M)
        assert row, group
        named = set(re.findall(r"`([\w.]+)`", row[1]))
        missing = set(choices(group)) - named - {"none"}
        assert not missing, f"{group}: the README does not name {missing}"

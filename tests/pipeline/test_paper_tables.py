"""``dkl reproduce table=N``: the paper's tables by number, their rows by name, several evaluations of one run."""

import shlex
from pathlib import Path

import numpy as np
import pytest

from dkl import records
from dkl.cli import main
from dkl.config import compose_config
from dkl.config.identity import config_hash
from dkl.reproduction import reproduce as command
from dkl.reproduction import worker

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("table", "row"), [("2", "ikl-basic"), ("03", "lbgat-basic")])
def test_a_dry_run_prints_the_commands_of_the_row(
    table: str, row: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["reproduce", f"table={table}", f"row={row}", "seed=0,1", "dry_run=true", f"paths.results={tmp_path}"])
    shown = capsys.readouterr()
    commands = [shlex.split(line) for line in shown.out.splitlines()]
    trained = [words[2:] for words in commands if words[:2] == ["dkl", "train"]]
    evaluated = [words[2:] for words in commands if words[:2] == ["dkl", "evaluate"]]
    assert (len(trained), len(evaluated)) == (2, 2)
    for overrides, evaluation, seed in zip(trained, evaluated, (0, 1), strict=True):
        cfg = compose_config("train", overrides)
        assert cfg.seed == seed
        assert evaluation[0].endswith(f"-s{seed}-{config_hash(cfg)}")
        assert evaluation[1:] == ["attacks=standard", f"paths.results={tmp_path}"]
    assert not list(tmp_path.iterdir())


def test_every_evaluation_of_a_row_is_a_record(tmp_path: Path) -> None:
    arguments = ["reproduce", "table=11", "row=kl", "budget=smoke", f"paths.results={tmp_path}"]
    main(arguments)
    found, problems = records.load_all(tmp_path / "records")
    assert not problems
    assert sorted(record.attacks[-1] for record in found) == ["cw-10", "cw-20", "pgd-10", "pgd-20", "square"]
    assert len({record.checkpoint_sha256 for record in found}) == 1
    assert {record.weights for record in found} == {"average at epoch 2"}
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()}
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "records").iterdir()} == before


def test_a_row_without_its_images_is_reported_first_and_stops_no_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    monkeypatch.setattr(worker, "_train_and_evaluate", lambda job, cfg: ran.append(job.name))
    monkeypatch.setattr(command, "show_results", lambda manifest, jobs, html: None)
    for split in ("train", "test"):
        images = np.random.default_rng(0).integers(256, size=(200, 32, 32, 3), dtype=np.uint8)
        (tmp_path / "cifar100").mkdir(exist_ok=True)
        np.savez(tmp_path / "cifar100" / f"{split}.npz", image=images, label=np.arange(200) % 100)
    size = ["data.train_size=200", "data.test_size=100", "budget=own", "trainer.device=cpu"]
    with pytest.raises(SystemExit) as stop:
        main(["reproduce", "table=12", "seed=0", f"paths.data={tmp_path}", f"paths.results={tmp_path}", *size])
    assert stop.value.code == 1
    assert ran == ["ikl-basic", "ikl-autoaug"]
    printed = capsys.readouterr().err
    assert printed.index("cannot run ikl-50m seed 0") < printed.index("0 of 3" if not ran else "2 of 3")

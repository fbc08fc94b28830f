"""wandb writes a run that a resumed training goes on with, and is not even imported where it is not asked for."""

from pathlib import Path

from tests.training.common import TINY, finish, start

SCRIPT = """
import sys
from dkl.cli import main
main(sys.argv[1:])
print("wandb imported:", "wandb" in sys.modules)
"""


def overrides(*more: str) -> list[str]:
    return ["train", *TINY, "paths.results=results", *more]


def test_wandb_offline_keeps_its_id_across_resume_and_is_absent_unless_asked(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    asked = ["logger=wandb", "logger.mode=offline", "seed=1"]
    silent = {"WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path)}
    plain = start([str(script), *overrides("trainer.epochs=1")], tmp_path)
    failing = SCRIPT.replace(
        "from dkl.cli import main",
        "from dkl.cli import main\nimport dkl.training.run as run\nold = run.write_metrics\n"
        "def write(rows, folder):\n    old(rows, folder)\n    if len(rows) == 2: raise SystemExit(9)\n"
        "run.write_metrics = write",
    )
    (tmp_path / "failing.py").write_text(failing)
    broken = start([str(tmp_path / "failing.py"), *overrides("trainer.epochs=3", *asked)], tmp_path, **silent)
    assert "wandb imported: False" in finish(plain)
    broken.communicate(timeout=120)
    assert broken.returncode == 9
    (folder,) = (tmp_path / "results" / "runs").glob("*-s1-*")
    identity = (folder / "wandb_id.txt").read_text()
    assert "wandb imported: True" in finish(
        start([str(script), *overrides("trainer.epochs=3", *asked)], tmp_path, **silent)
    )
    assert (folder / "wandb_id.txt").read_text() == identity
    runs = sorted((folder / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(runs) == 2
    assert all((run / f"run-{identity}.wandb").stat().st_size > 0 for run in runs)
    (other,) = (tmp_path / "results" / "runs").glob("*-s0-*")
    assert not (other / "wandb").exists()
    assert (folder / "metrics.jsonl").read_text().count("\n") == 3

"""wandb writes a run that a resumed training goes on with; without it asked for, training needs no wandb at all."""

from pathlib import Path

from tests.training.common import TINY, finish, start

PLAIN = """
import sys
from dkl.cli import main
main(sys.argv[1:])
"""

WITHOUT_WANDB = """
import sys
sys.modules["wandb"] = None  # as if it were not installed; timm imports it where it can
from dkl.cli import main
main(sys.argv[1:])
"""

BREAKS_OFF = """
import os, sys
import dkl.training.run as run
from dkl.cli import main
write = run.write_metrics
def write_and_break_off(rows, folder):
    write(rows, folder)
    if len(rows) == 2:
        os._exit(9)
run.write_metrics = write_and_break_off
main(sys.argv[1:])
"""


def test_wandb_offline_keeps_its_id_across_resume_and_is_not_needed_unless_asked(tmp_path: Path) -> None:
    common = ["train", *TINY, "paths.results=results"]
    asked = [*common, "logger=wandb", "logger.mode=offline", "seed=1", "trainer.epochs=3"]
    silent = {"WANDB_SILENT": "true", "WANDB_CACHE_DIR": str(tmp_path), "WANDB_CONFIG_DIR": str(tmp_path)}
    without = start(["-c", WITHOUT_WANDB, *common, "trainer.epochs=1"], tmp_path)
    broken = start(["-c", BREAKS_OFF, *asked], tmp_path, **silent)
    finish(without)
    broken.communicate(timeout=120)
    assert broken.returncode == 9
    (folder,) = (tmp_path / "results" / "runs").glob("*-s1-*")
    identity = (folder / "wandb_id.txt").read_text()
    assert identity
    finish(start(["-c", PLAIN, *asked], tmp_path, **silent))
    assert (folder / "wandb_id.txt").read_text() == identity
    runs = sorted((folder / "wandb").glob(f"offline-run-*-{identity}"))
    assert len(runs) == 2
    assert all((run / f"run-{identity}.wandb").stat().st_size > 0 for run in runs)
    (other,) = (tmp_path / "results" / "runs").glob("*-s0-*")
    assert not [path for path in other.iterdir() if "wandb" in path.name]
    assert (folder / "metrics.jsonl").read_text().count("\n") == 3

"""Table 16: every row passes the checks with USB's settings, and rows go from training to the table at budget smoke."""

from pathlib import Path

import pytest

from dkl import records
from dkl.assembly import preflight
from dkl.cli import main
from dkl.manifests import Request, identities, load, plan
from dkl.reporting.boards.paper import paper_boards
from tests.pipeline.steps import compose, identity

pytestmark = pytest.mark.slow

ROWS = {  # task, loss, (ce_weight, wmse_weight)
    "fixmatch-hard": ("FixMatch", "PseudoLabelCE", None),
    "fixmatch-soft": ("FixMatch", "SoftCE", None),
    "fixmatch-ikl": ("FixMatch", "IKL", (1, 0.1)),
    "mean-teacher-mse": ("MeanTeacher", "ProbabilityMSE", None),
    "mean-teacher-ikl": ("MeanTeacher", "IKL", (0.02, 0.03)),
}


def test_rows_have_usbs_settings_and_pass_the_checks(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").touch()
    for job in plan("table-16", Request(seeds=(0,))):
        cfg = compose([*job.train, f"trainer.initial_weights={tmp_path}/weights.pth"])
        if job.name in ("fixmatch-ikl", "mean-teacher-mse"):
            preflight(cfg)
        task, loss, weights = ROWS[job.name]
        assert (cfg.task._target_, cfg.loss._target_) == (f"dkl.tasks.{task}", f"dkl.losses.{loss}")
        assert weights is None or (cfg.loss.ce_weight, cfg.loss.wmse_weight) == weights
        assert (cfg.task.threshold, cfg.task.unlabeled_weight, cfg.task.rampup) == (0.95, 1, 0)
        trainer, optimizer, data = cfg.trainer, cfg.optimizer, cfg.data
        assert (trainer.epochs * trainer.steps_per_epoch, trainer.batch_size) == (204_800, 8)
        assert (optimizer.name.value, optimizer.lr, optimizer.weight_decay, optimizer.layer_decay) == (
            "adamw",
            5e-4,
            5e-4,
            0.5,
        )
        assert (data.labels_per_class, data.unlabeled.ratio, data.augment.crop_fill) == (2, 1, "reflect")
        assert data.official_labels
        assert data.unlabeled.second_view == ("strong" if task == "FixMatch" else "weak")
        assert [round(255 * value, 1) for value in (*data.mean, *data.std)] == [129.3, 124.1, 112.4, 68.2, 65.4, 70.4]
        assert list(cfg.model.mean) == list(data.mean)
        assert (cfg.schedule.cycles, cfg.schedule.warmup_share * 204_800) == (7 / 16, 5120)
        assert bool(cfg.averaging) == (task == "MeanTeacher")


def test_a_row_trains_and_is_in_its_table(tmp_path: Path) -> None:
    main(["reproduce", "table=16", "row=mean-teacher-ikl", "budget=smoke", f"paths.results={tmp_path}"])
    (record,), problems = records.load_all(tmp_path / "records")
    assert not problems
    assert record.few_labels is not None
    assert record.few_labels.per_class == 2
    assert record.weights.startswith("average")
    (board,) = paper_boards([load("table-16")], [record], lambda record: {}, include_smoke=True)
    assert board.name == "table-16-smoke"
    assert [found.row.name for found in board.rows if found.records] == ["mean-teacher-ikl"]


def test_an_experiment_of_its_own_sizes_has_a_board_of_budget_own() -> None:
    manifest = load("cifar10-mini-semi")
    (job, *_) = plan(manifest.name, Request(seeds=(0,)))
    assert compose(job.train).budget.name == "own"
    assert identities(manifest, "own")[job.name] == identity(job)

"""Rows of Tables 13 and 14 and their teachers have the paper's loss weights, compose and train two batches."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import torch

from dkl import records
from dkl.cli import main
from dkl.config import compose_config, run_folder
from dkl.errors import UserError
from dkl.manifests import ManifestJob, Request, plan
from dkl.models import create_model
from dkl.reproduction.planning import parse, plan_jobs
from tests.pipeline.steps import compose, jobs_of, one_per_path, share_moved

pytestmark = pytest.mark.slow

MANIFESTS = ("table-13", "table-14", "cifar100-mini-kd")
JOBS = jobs_of(MANIFESTS)
TEACHERS = {name: job for name, job in JOBS.items() if "/teacher " in name}
STUDENTS = {name: job for name, job in JOBS.items() if name not in TEACHERS}

# teacher, student, rate; ALPHA/BETA of v1; ALPHA/BETA/GAMMA and GI of v2; DKD's beta
PAIRS = [
    ("resnet56", "resnet20", 0.05, (1, 4), (1, 4, 0.2, True), 2),
    ("resnet110", "resnet32", 0.05, (1, 12), (1, 4, 0.1, False), 2),
    ("resnet32x4", "resnet8x4", 0.05, (1, 8), (1, 16, 0.05, True), 8),
    ("wrn_40_2", "wrn_16_2", 0.05, (3, 12), (3, 20, 0.3, False), 6),
    ("wrn_40_2", "wrn_40_1", 0.05, (1, 8), (1, 12, 0.3, False), 6),
    ("vgg13", "vgg8", 0.05, (1, 12), (1, 8, 0.2, True), 6),
    ("resnet32x4", "shufflev1", 0.01, (1, 8), (1, 8, 0, True), 8),
    ("wrn_40_2", "shufflev1", 0.01, (1, 4), (1, 8, 0, False), 8),
    ("vgg13", "mobilenetv2", 0.01, (4, 12), (4, 12, 0.1, True), 6),
    ("resnet50", "mobilenetv2", 0.01, (1, 12), (1, 8, 0.05, True), 8),
    ("resnet32x4", "shufflev2", 0.01, (3, 12), (3, 12, 0.1, True), 8),
]

STANDARDIZED = {
    "resnet56-resnet20": ((2, 9), (3, 18, 2)),
    "resnet110-resnet32": ((2, 9), (2, 15, 2)),
    "resnet32x4-resnet8x4": ((2, 9), (2, 9, 8)),
    "wrn_40_2-wrn_16_2": ((2, 9), (2, 12, 2)),
    "wrn_40_2-wrn_40_1": ((2, 9), (2, 12, 2)),
    "vgg13-vgg8": ((3, 9), (2, 15, 2)),
    "vgg13-mobilenetv2": ((3, 9), (3, 9, 2)),
    "resnet50-mobilenetv2": ((3, 1), (2, 15, 2)),
    "resnet32x4-shufflev2": ((2, 9), (2, 9, 8)),
}
"""Temperature and weight of KD + LS; those and the beta of DKD + LS."""

OTHER_LOSSES = {
    *("vgg13-vgg8-ttm", "resnet32x4-resnet8x4-wkd", "wrn_40_2-shufflev1-wkd", "resnet56-resnet20-abkd"),
    *(f"{pair}-normkd" for pair in ("resnet56-resnet20", "resnet32x4-resnet8x4", "resnet32x4-shufflev2")),
}

MINI = ("kd", "dkd", "dist", "jsd", "ikl", "gkl", "kd-ls", "dkd-ls", "wkd", "wttm", "abkd")
"""Rows of cifar100-mini-kd that have a teacher."""

NOT_REVIEWED = {"vgg13-vgg8", "vgg13-mobilenetv2", "resnet50-mobilenetv2"}
"""Pairs for which no weight of ReviewKD is published."""


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_a_pair_has_the_papers_weights(pair: tuple) -> None:
    teacher, student, lr, v1, v2, beta = pair
    table = "table-13" if lr == 0.05 else "table-14"
    cfgs = {
        method: compose(STUDENTS[f"{table}/{teacher}-{student}-{method}"].train)
        for method in ("kd", "dkd", "ikl", "gkl")
    }
    for cfg in cfgs.values():
        assert (cfg.model.name, cfg.optimizer.lr) == (f"cifar_{student}", lr)
        assert cfg.task.teacher.name == f"cifar_{teacher}"
        assert (cfg.trainer.epochs, cfg.trainer.batch_size, cfg.evaluation.attacks) == (240, 64, "none")
    kd, dkd, ikl, gkl = (cfg.loss for cfg in cfgs.values())
    tasks = {method: (cfg.task.ce_weight, cfg.task.warmup_epochs) for method, cfg in cfgs.items()}
    assert tasks == {"kd": (0.1, 0), "dkd": (1, 20), "ikl": (1, 20), "gkl": (1, 20)}
    assert (kd.weight, kd.logit_temperature, dkd.alpha, dkd.beta, dkd.logit_temperature) == (0.9, 4, 1, beta, 4)
    assert (ikl.ce_weight, ikl.wmse_weight) == v1
    assert (ikl.ce_temperature, ikl.sample_temperature, ikl.weighting) == (4, 100, "sample")
    assert (gkl.ce_weight, gkl.wmse_weight, gkl.gamma, gkl.weighting == "class") == v2
    assert (gkl.ce_temperature, gkl.sample_temperature, cfgs["gkl"].task.prior_temperature) == (4, 4, 4)
    alone = compose(STUDENTS[f"{table}/{student}-alone"].train)
    assert (alone.model.name, alone.optimizer.lr, alone.loss) == (f"cifar_{student}", lr, {})


def test_every_row_is_a_pair_or_a_student_alone() -> None:
    tables = [name.partition("/")[2] for name in STUDENTS if name.startswith("table-")]
    pairs = {f"{pair[0]}-{pair[1]}" for pair in PAIRS}
    methods = {f"{pair}-{method}" for pair in pairs for method in ("fitnet", "rkd", "kd", "dkd", "ikl", "gkl")}
    methods |= {f"{pair}-{method}" for pair in STANDARDIZED for method in ("kd-ls", "dkd-ls")} | OTHER_LOSSES
    reviewed = {f"{pair}-reviewkd" for pair in pairs - NOT_REVIEWED}
    assert sorted(tables) == sorted([*methods, *reviewed, *{f"{pair[1]}-alone" for pair in PAIRS}])


@pytest.mark.parametrize("pair", STANDARDIZED)
def test_logit_standardization_has_the_weights_that_its_logs_are_named_by(pair: str) -> None:
    """Their DKD multiplies alpha 1 and beta by the weight; a weight of KD stands beside 0.1 · cross-entropy."""
    of_kd, (temperature, weight, beta) = STANDARDIZED[pair]
    table = "table-13" if f"table-13/{pair}-kd-ls" in STUDENTS else "table-14"
    kd, dkd = (compose(STUDENTS[f"{table}/{pair}-{method}-ls"].train) for method in ("kd", "dkd"))
    assert (kd.loss.logit_temperature, kd.loss.weight) == of_kd
    assert (dkd.loss.logit_temperature, dkd.loss.alpha, dkd.loss.beta) == (temperature, weight, weight * beta)
    assert kd.loss.standardize is dkd.loss.standardize is True
    assert [(cfg.task.ce_weight, cfg.task.warmup_epochs) for cfg in (kd, dkd)] == [(0.1, 0), (1, 20)]


@pytest.mark.parametrize(
    ("name", "budget"),
    [*((name, budget) for name in MANIFESTS[:2] for budget in ("paper", "mini", "smoke")), ("cifar100-mini-kd", None)],
)
def test_a_teacher_and_a_student_can_run_at_every_budget(name: str, budget: str | None) -> None:
    """The student is checked with an untrained teacher."""
    row = {"table-13": "vgg13-vgg8-gkl", "table-14": "vgg13-mobilenetv2-ikl", "cifar100-mini-kd": "dkd"}[name]
    asked = [f"experiment={name}", "seed=0", f"row={row}", *([f"budget={budget}"] if budget else [])]
    teacher, student = (task.run.cfg for task in plan_jobs(parse(asked)))
    assert student.task.teacher.run == str(run_folder(teacher))
    assert student.task.teacher.name == teacher.model.name
    tables_smoke = budget == "smoke"  # one small network replaces all
    assert (student.model.name == teacher.model.name) == tables_smoke
    assert teacher.budget.name == student.budget.name == (budget or "own")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Writes the weights of an untrained network, given its name, to a file."""
    folder = tmp_path_factory.mktemp("teachers")

    @cache
    def write(name: str) -> Path:
        torch.save({"model": create_model(name, 100).state_dict()}, folder / f"{name}.pth")
        return folder / f"{name}.pth"

    return write


@pytest.mark.parametrize("job", (found := one_per_path(JOBS)).values(), ids=found)
def test_a_run_trains_two_batches(job: ManifestJob, weights: Callable[[str], Path]) -> None:
    cfg = compose(job.train)
    small = ["trainer.batch_size=4", "trainer.device=cpu", "budget=own"]
    if "teacher" in cfg.task:
        small += ["task.teacher.run=null", f"task.teacher.checkpoint={weights(cfg.task.teacher.name)}"]
    if "distances" in cfg.loss:  # those of features need images of every class
        small += ["loss.distances=classifier"]
    kept = [text for text in job.train if text.partition("=")[0] not in ("budget", "task.teacher.run")]
    assert share_moved(compose_config("train", [*kept, *small])) > 0.9


def test_tables_share_a_teachers_run() -> None:
    def runs(table: str) -> dict[str, str]:
        found = {name: job for name, job in TEACHERS.items() if name.startswith(table)}
        return {job.name: str(run_folder(compose(job.train))) for job in found.values()}

    first, second = runs("table-13"), runs("table-14")
    shared = {"teacher resnet32x4", "teacher wrn_40_2", "teacher vgg13"}
    assert first.keys() & second.keys() == shared
    assert all(first[name] == second[name] for name in shared)


def test_a_teacher_is_one_job_before_its_students() -> None:
    jobs = plan("cifar100-mini-kd", Request(seeds=(3, 4)))
    assert [(job.name, job.seed) for job in jobs] == [
        *(("alone", 3), ("alone", 4), ("teacher resnet20", 0)),
        *((name, seed) for name in MINI for seed in (3, 4)),
    ]
    (run,) = {text for job in jobs for text in job.train if text.startswith("task.teacher.run=")}
    assert run == f"task.teacher.run={run_folder(compose_config('train', jobs[2].train))}"
    assert [job.name for job in plan("cifar100-mini-kd", Request(row="alone", seeds=(0,)))] == ["alone"]


def test_a_teacher_gets_sizes_and_paths_but_not_its_students_settings() -> None:
    extra = ["trainer.epochs=3", "paths.results=/a b/c=d", "loss.sample_temperature=7", "task.prior_momentum=0.5"]
    quoted = [text if "paths" not in text else "paths.results='/a b/c=d'" for text in extra]
    teacher, student = plan("cifar100-mini-kd", Request(seeds=(0,), budget="smoke", row="ikl", overrides=tuple(quoted)))
    assert {"trainer.epochs=3", "paths.results='/a b/c=d'"} < set(teacher.train)
    assert not {"loss.sample_temperature=7", "task.prior_momentum=0.5"} & set(teacher.train)
    cfg = compose_config("train", student.train)
    assert (cfg.loss.sample_temperature, cfg.task.prior_momentum, cfg.budget.name) == (7, 0.5, "smoke")
    assert cfg.task.teacher.run == str(run_folder(compose_config("train", teacher.train)))
    assert cfg.task.teacher.run.startswith("/a b/c=d/runs/generated-cifar_resnet20-ce-s0-")


def test_a_given_teacher_replaces_the_trained_one() -> None:
    given = ("task.teacher.checkpoint=public/ckpt_epoch_240.pth",)
    jobs = plan("cifar100-mini-kd", Request(seeds=(0,), overrides=given))
    assert [job.name for job in jobs] == ["alone", *MINI]
    for job in jobs:
        cfg = compose_config("train", job.train)
        assert ("teacher" in cfg.task) == (job.name != "alone")
        if job.name != "alone":
            teacher = cfg.task.teacher
            assert (teacher.name, teacher.checkpoint, teacher.run) == ("cifar_resnet20", given[0].split("=")[1], None)
    with pytest.raises(UserError, match="is one teacher, but these rows have resnet56, resnet110"):
        plan("table-13", Request(seeds=(0,), overrides=given))


def test_teachers_and_students_end_to_end_and_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [f"paths.results={tmp_path / 'results'}", "trainer.threads=1", "trainer.epochs=1"]
    arguments = ["reproduce", "experiment=cifar100-mini-kd", "budget=smoke", *places]
    main([*arguments, "row=gkl", "dry_run=true"])
    printed = capsys.readouterr()
    assert [line.split()[1] for line in printed.out.splitlines()] == ["train", "evaluate", "train", "evaluate"]
    assert not (tmp_path / "results").exists()
    main([*arguments, "row=gkl"])
    main([*arguments, "row=ikl"])
    shown = capsys.readouterr().err
    assert shown.count("Teacher, epochs 1 to 1") == 1
    assert shown.count("teacher resnet20 seed 0: done") == 1
    assert shown.count("on 16 test images") == 2
    found, problems = records.load_all(tmp_path / "results" / "records")
    assert not problems
    assert sorted(record.method for record in found) == ["GKL-KD", "IKL-KD", "Teacher"]

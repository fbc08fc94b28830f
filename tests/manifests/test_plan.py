"""The jobs of a manifest: rows by seeds, teachers first, sizes by budget, and the identity of a row's records."""

import pytest

from dkl.config import CachedCompose, compose_config, config_hash, hashed, row_identity, run_folder
from dkl.errors import UserError
from dkl.manifests import Request, identities, load, plan


def test_each_row_runs_once_per_seed_in_the_manifests_order() -> None:
    jobs = plan("table-08", Request())
    names = [row.name for row in load("table-08").rows]
    assert [(job.name, job.seed) for job in jobs] == [(name, seed) for name in names for seed in (0, 1, 2)]
    assert [job.seed for job in plan("table-08", Request(seeds=(7,), row=names[0]))] == [7]


def test_budget_smoke_runs_one_seed_unless_seeds_are_given() -> None:
    assert {job.seed for job in plan("table-08", Request(budget="smoke"))} == {0}
    assert {job.seed for job in plan("table-08", Request(budget="smoke", seeds=(0, 5)))} == {0, 5}


def test_a_teacher_comes_once_before_its_students_which_get_its_folder() -> None:
    jobs = plan("cifar100-mini-kd", Request())
    teacher = next(job for job in jobs if job.label == "Teacher")
    students = [job for job in jobs if job.teacher]
    assert {job.teacher for job in students} == {teacher.title}
    assert all(jobs.index(teacher) < jobs.index(job) for job in students)
    folder = run_folder(compose_config("train", teacher.train))
    for job in students:
        cfg = compose_config("train", job.train)
        assert (cfg.task.teacher.run, cfg.task.teacher.name) == (str(folder), "cifar_resnet20")


def test_a_given_teacher_is_not_trained() -> None:
    given = "task.teacher.checkpoint=mine.pth"
    jobs = plan("cifar100-mini-kd", Request(overrides=(given,)))
    assert all(job.label != "Teacher" for job in jobs)
    assert all(given in job.train for job in jobs if job.name != "alone")
    with pytest.raises(UserError, match="row=NAME"):
        plan("table-13", Request(overrides=(given,)))


def test_later_overrides_win_over_the_manifests() -> None:
    (job,) = plan("table-02", Request(seeds=(0,), row="ikl-basic", overrides=("loss.wmse_weight=3", "budget=own")))
    cfg = compose_config("train", job.train)
    assert (cfg.loss.wmse_weight, cfg.budget.name) == (3, "own")


def test_a_quoted_row_says_why_it_does_not_run() -> None:
    with pytest.raises(UserError, match="quoted"):
        plan("table-02", Request(row="acat-basic"))


def test_seeds_share_one_composition() -> None:
    compose = CachedCompose()
    for seed in (0, 3):
        overrides = ["data=digits", f"seed={seed}", "loss=gkl"]
        assert compose(overrides).config_hash == config_hash(compose_config("train", overrides))


@pytest.mark.parametrize("budget", ["paper", "smoke"])
@pytest.mark.parametrize("name", ["table-02", "cifar100-mini-kd"])
def test_records_match_rows_by_what_they_trained(name: str, budget: str) -> None:
    found = identities(load(name), budget)
    for job in plan(name, Request(budget=budget)):
        elsewhere = [*job.train, "trainer.devices=4", "trainer.precision=bf16", "paths.results=elsewhere"]
        for overrides in (job.train, elsewhere):
            assert row_identity(hashed(compose_config("train", overrides))) == found[job.name]
    other = compose_config("train", [*job.train, "optimizer.lr=0.5"])
    assert row_identity(hashed(other)) not in found.values()

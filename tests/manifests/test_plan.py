"""The jobs of a manifest: rows by seeds, teachers first, sizes by budget, and the identity of a row's records."""

from dataclasses import replace

import pytest

from dkl.config import compose_config, compose_run, hashed, row_identity, run_folder
from dkl.config.identity import config_hash
from dkl.errors import UserError
from dkl.manifests import Request, identities, load, plan
from dkl.manifests.jobs import changed_label

"""Shared by the tests of overrides, because composing a configuration takes about 0.1 s."""


def test_each_row_runs_once_per_seed_in_the_manifests_order() -> None:
    jobs = plan("table-08", Request())
    names = [row.name for row in load("table-08").rows]
    assert [(job.name, job.seed) for job in jobs] == [(name, seed) for name in names for seed in (0, 1, 2)]
    assert [job.seed for job in plan("table-08", Request(seeds=(7,), row=names[0]))] == [7]


def test_budget_smoke_runs_one_seed_unless_seeds_are_given() -> None:
    assert {job.seed for job in plan("table-08", Request(budget="smoke"))} == {0}
    assert {job.seed for job in plan("table-08", Request(budget="smoke", seeds=(0, 5)))} == {0, 5}


def test_attacks_of_cifar10_mini_have_an_experiment_of_their_own_and_train_nothing_again() -> None:
    main, attacks = (
        {job.name: run_folder(compose_config("train", job.train)) for job in plan(name, Request(seeds=(0,)))}
        for name in ("cifar10-mini", "cifar10-mini-attacks")
    )
    assert attacks.items() <= main.items()


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


def test_a_row_that_is_the_teacher_of_others_is_trained_once_and_keeps_its_label() -> None:
    jobs = plan("robust-distillation-mini", Request())
    assert next(job.teacher for job in jobs if job.name == "rslad-own-size") == "trades seed 0"
    assert len({run_folder(compose_config("train", job.train)) for job in jobs}) == len(jobs)
    teacher, student = plan("robust-distillation-mini", Request(row="rslad-own-size"))
    assert (teacher.title, teacher.label) == (student.teacher, "TRADES")


def test_a_given_teacher_is_not_trained() -> None:
    given = "task.teacher.checkpoint=mine.pth"
    jobs = plan("cifar100-mini-kd", Request(overrides=(given,)))
    assert all(job.label != "Teacher" for job in jobs)
    assert all(given in job.train for job in jobs if job.name != "alone")
    with pytest.raises(UserError, match="row=NAME"):
        plan("table-13", Request(overrides=(given,)))


def test_overrides_at_budget_own_are_part_of_the_label() -> None:
    """Data, network, sizes and folders are no part of it: tables show them elsewhere."""
    given = ("loss.wmse_weight=3", "+attack.step_size=${attack.eps}", "trainer.epochs=2", "paths.results=x")
    (job,) = plan("table-02", Request(seeds=(0,), budget="own", row="ikl-basic", overrides=given))
    cfg = compose_config("train", job.train)
    assert (cfg.loss.wmse_weight, cfg.trainer.epochs, cfg.budget.name) == (3, 2, "own")
    assert cfg.label == job.label == "IKL-AT loss.wmse_weight=3 +attack.step_size={attack.eps}"
    own = replace(load("table-02"), rows=tuple(row for row in load("table-02").rows if row.name == "ikl-basic"))
    ran = row_identity(hashed(cfg))
    assert ran not in identities(own, "own").values()  # so no table compares it with the paper


def test_a_long_label_is_cut_and_stays_unique() -> None:
    labels = {changed_label("TRADES", [f"+task.note={'x' * 200}{end}"]) for end in "ab"}
    assert len(labels) == 2
    assert all(label.startswith("TRADES +task.note=xxx") and len(label) == 100 for label in labels)


@pytest.mark.parametrize(
    "given", ["trainer.device=cpu", "trainer.precision=bf16", "evaluation.batch_size=50", "attack.steps=10"]
)
def test_overrides_that_train_the_same_leave_the_label(given: str) -> None:
    assert {job.label for job in plan("quickstart", Request(overrides=(given,)))} == {"TRADES", "IKL-AT"}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("quickstart", "loss=gkl", "loss=gkl contradicts row TRADES, which is loss=kl"),
        ("quickstart", "~loss", "contradicts row TRADES"),
        ("table-08", "loss=gkl", "contradicts row beta-2, which is loss.ce_weight=2"),
        ("table-08", "++loss.ce_weight=9", "contradicts row beta-2"),
        ("quickstart", "label=Mine", "dkl train label=Mine"),
        ("quickstart", "evaluation.attacks=pgd-2", "with attacks=standard; .* dkl evaluate run=FOLDER attacks=…"),
        ("table-10", "evaluation.eps=1/255", "dkl evaluate run=FOLDER eps=…"),
        ("quickstart", "attacks=pgd-2", "dkl evaluate run=FOLDER attacks=pgd-2"),
        ("quickstart", "n=64", "dkl evaluate run=FOLDER n=64"),
        ("quickstart", "eps=0.2", "dkl evaluate run=FOLDER eps=0.2"),
        ("table-08", "optimizer.lr=0.3", "optimizer.lr=0.3 changes what row beta-2 trains, .* budget=own"),
        ("camvid-mini", "optimizer.weight_decay=0.3", "row alone trains, which budget=mini fixes"),
        ("camvid-mini", "data.augment.flip=false", "row teacher w32 trains"),
    ],
)
def test_overrides_that_contradict_a_row_are_refused(name: str, given: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        plan(name, Request(overrides=(given,)))
    assert "\n" not in str(caught.value)


def test_a_quoted_row_says_why_it_does_not_run() -> None:
    with pytest.raises(UserError, match="quoted"):
        plan("table-02", Request(row="acat-basic"))


def test_seeds_share_one_composition() -> None:
    for seed in (0, 3):
        overrides = ("data=digits", f"seed={seed}", "loss=gkl")
        assert compose_run(overrides).config_hash == config_hash(compose_config("train", overrides))


@pytest.mark.parametrize(("name", "budget"), [("table-02", "paper"), ("cifar100-mini-kd", "smoke")])
def test_records_match_rows_by_what_they_trained(name: str, budget: str) -> None:
    found = identities(load(name), budget)
    for job in plan(name, Request(budget=budget)):
        elsewhere = [*job.train, "trainer.devices=4", "trainer.precision=bf16", "paths.results=elsewhere"]
        for overrides in (job.train, elsewhere):
            assert row_identity(hashed(compose_config("train", overrides))) == found[job.name]
    other = compose_config("train", [*job.train, "optimizer.lr=0.5"])
    assert row_identity(hashed(other)) not in found.values()


@pytest.mark.parametrize(
    ("budget", "parts"),
    [(None, [False, True]), ("own", [False, True]), ("mini", [False, False]), ("smoke", [False, False])],
)
def test_a_part_of_the_test_set_is_chosen_at_the_manifests_own_sizes_only(
    budget: str | None, parts: list[bool]
) -> None:
    (job,) = plan("cifar10-mini", Request(seeds=(0,), budget=budget, row="ikl-awp"))
    assert ["n=2000" in overrides for overrides in job.evaluations] == parts
    assert ("data.train_size=25000" in job.train) == any(parts)

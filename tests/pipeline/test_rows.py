"""Rows of every manifest compose; those of adversarial training pass the checks and train two batches."""

from pathlib import Path

import numpy as np
import pytest

from dkl.assembly import preflight
from dkl.config import compose_config
from dkl.manifests import ManifestJob, load, names
from tests.pipeline.steps import check_evaluation, compose, identity, jobs_of, one_per_path, share_moved

pytestmark = pytest.mark.slow

MANIFESTS = [f"table-{number:02d}" for number in (1, 2, 3, 7, 8, 9, 10, 11, 12)] + ["official-extra"]
JOBS = {place: job for place, job in jobs_of(MANIFESTS).items() if "data=imagenet" not in job.train}
SMALL = {"wrn34_10": "wrn10_2", "wrn34_20": "wrn10_2", "wrn28_10_swish": "wrn10_2_swish"}


def synthetic_file(folder: Path, classes: int) -> Path:
    path = folder / "synthetic.npz"
    images = np.random.default_rng(0).integers(256, size=(30, 32, 32, 3), dtype=np.uint8)
    np.savez(path, image=images, label=np.arange(30) % classes)
    return path


@pytest.mark.parametrize("job", (found := one_per_path(JOBS)).values(), ids=found)
def test_a_run_passes_the_checks_and_trains_two_batches(job: ManifestJob, tmp_path: Path) -> None:
    whole = compose(job.train)
    preflight(whole)
    small = ["trainer.batch_size=4", "trainer.epochs=40", "trainer.device=cpu", "trainer.workers=0"]
    if whole.data.synthetic.files:
        small.append(f"data.synthetic.files=[{synthetic_file(tmp_path, whole.data.num_classes)}]")
    if "guide" in whole.task:
        small.append("task.guide.name=preact_resnet18_w16")
    kept = [text for text in job.train if not text.startswith("model=")]
    assert share_moved(compose_config("train", [*kept, f"model={SMALL[whole.model.name]}", *small])) > 0.9


def test_tables_share_runs() -> None:
    def run(place: str) -> str:
        return identity(JOBS[place])

    headline = run("table-02/ikl-basic")
    shared = ("table-01/ikl", "table-12/ikl-basic", "table-07/alpha-5", "table-08/beta-5", "table-09/tau-4")
    assert {run(place) for place in shared} == {headline}
    assert run("table-10/ikl") == run("table-11/ikl") == run("table-09/tau-2") != headline
    assert run("table-10/kl") == run("table-11/kl") == run("table-01/kl")


@pytest.mark.parametrize("name", [name for name in names() if load(name).runnable])
def test_rows_of_a_manifest_are_distinct_and_have_their_label_and_evaluations(name: str) -> None:
    jobs, manifest = jobs_of([name]).values(), load(name)
    row_names = {row.name for row in manifest.runnable}
    rows = [job for job in jobs if job.name in row_names]  # the others are teachers, which may equal a row
    assert len({identity(job) for job in rows}) == len(rows)
    assert {job.name for job in rows} == row_names
    metrics = {column.metric for column in manifest.columns.values()}
    accuracies_only = metrics and metrics.isdisjoint({"robust", "mean", "min"})
    for job in jobs:
        cfg = compose(job.train)
        assert (cfg.label, cfg.seed) == (job.label, 0), job.name
        assert cfg.budget.name == "paper" or not name.startswith("table-")
        attacks = {check_evaluation(overrides) for overrides in job.evaluations}
        assert attacks == {"none"} if accuracies_only or job.name.endswith("-kd") else "" not in attacks

"""Every adversarial-training row of the manifests composes, builds whole, and runs two batches at a small width."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from rich.console import Console

from dkl.assembly import (
    build_averaging,
    build_model,
    build_schedule,
    build_task,
    load_synthetic,
    make_batches,
    preflight,
)
from dkl.config import TrainConfig, compose_config, config_hash, typed
from dkl.console import Bar
from dkl.data import Images
from dkl.manifests import ManifestJob, Request, plan
from dkl.training.averaging import Average
from dkl.training.loop import train_epoch
from dkl.training.optimizer import apply_schedule, make_optimizer

FOLDER = Path(__file__).resolve().parents[2] / "experiments"
MANIFESTS = [f"table-{number:02d}" for number in (1, 2, 3, 7, 8, 9, 10, 11, 12)] + ["official-extra"]
JOBS = {
    f"{name}/{job.name}": job
    for name in MANIFESTS
    for job in plan(name, Request(seeds=(0,)))
    if "data=imagenet" not in job.train  # Table 1 distils as well: see test_imagenet_rows
}
SMALL = {"wrn34_10": "wrn10_2", "wrn34_20": "wrn10_2", "wrn28_10_swish": "wrn10_2_swish"}
SILENT = Console(file=io.StringIO())

rows = pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)


@rows
def test_a_row_is_whole_and_can_run(job: ManifestJob) -> None:
    cfg = compose_config("train", job.train)
    preflight(cfg)
    assert (cfg.label, cfg.seed, cfg.budget.name) == (job.label, 0, "paper")
    for evaluation in job.evaluations:
        OmegaConf.to_container(compose_config("evaluate", ["run=somewhere", *evaluation]), resolve=True)


def synthetic_file(folder: Path, classes: int) -> Path:
    path = folder / "synthetic.npz"
    images = np.random.default_rng(0).integers(256, size=(30, 32, 32, 3), dtype=np.uint8)
    np.savez(path, image=images, label=np.arange(30) % classes)
    return path


@rows
def test_a_row_trains_two_batches(job: ManifestJob, tmp_path: Path) -> None:
    small = ["trainer.batch_size=4", "trainer.epochs=40", "trainer.device=cpu", "trainer.workers=0"]
    whole = compose_config("train", job.train)
    if whole.data.synthetic.files:
        small.append(f"data.synthetic.files=[{synthetic_file(tmp_path, whole.data.num_classes)}]")
    if "guide" in whole.task:
        small.append("task.guide.name=preact_resnet18_w16")
    network = f"model={SMALL[whole.model.name]}"
    cfg = compose_config("train", [*(text for text in job.train if not text.startswith("model=")), network, *small])
    model = build_model(cfg.model)
    task, rule = build_task(cfg.task, model), build_averaging(cfg.averaging)
    optimizer = make_optimizer(cfg.optimizer, task.named_parameters())
    images = Images(torch.randint(256, (8, 3, 32, 32), dtype=torch.uint8), torch.arange(8) % cfg.data.num_classes)
    batches = make_batches(
        typed(cfg, TrainConfig), images, torch.device("cpu"), training=True, synthetic=load_synthetic(cfg.data)
    )
    before = [parameter.detach().clone() for _, parameter in task.named_parameters()]
    average = Average(rule, model) if rule else None
    apply_schedule(build_schedule(cfg.schedule), optimizer, lr=cfg.optimizer.lr, epoch=10, epochs=40)
    row = train_epoch(task, batches, optimizer, epoch=10, epochs=40, bar=Bar("", 2, 0, SILENT))
    if average:
        average.update(model, 1, 1)
    assert np.isfinite(row["loss"])
    moved = [not torch.equal(one, now) for one, (_, now) in zip(before, task.named_parameters(), strict=True)]
    assert np.mean(moved) > 0.9


def hashes(name: str) -> dict[str, str]:
    """Row -> hash of its run at seed 0."""
    jobs = plan(name, Request(seeds=(0,)))
    return {job.name: config_hash(compose_config("train", job.train)) for job in jobs}


def test_rows_that_are_the_same_run_share_it() -> None:
    headline = hashes("table-02")["ikl-basic"]
    assert headline == hashes("table-01")["ikl"] == hashes("table-12")["ikl-basic"]
    assert headline == hashes("table-07")["alpha-5"] == hashes("table-08")["beta-5"] == hashes("table-09")["tau-4"]
    assert hashes("table-10") == {key: hashes("table-11")[key] for key in ("kl", "ikl")}
    assert hashes("table-10")["ikl"] == hashes("table-09")["tau-2"] != headline
    assert hashes("table-01")["kl"] == hashes("table-10")["kl"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_rows_of_a_manifest_are_told_apart(name: str) -> None:
    found = hashes(name)
    trained = [row for row in OmegaConf.load(FOLDER / f"{name}.yaml").rows if not row.get("quoted")]
    assert len(set(found.values())) == len(found) == len(trained)

"""Rows on ImageNet and ImageNet-LT have the official loss weights, compose and train two batches."""

from typing import Any

import pytest
import timm
import torch
from omegaconf import DictConfig, OmegaConf

from dkl.config import compose_config
from dkl.errors import UserError
from dkl.manifests import ManifestJob, Request, load, plan
from tests.pipeline.steps import compose, identity, jobs_of, one_per_path, share_moved

pytestmark = pytest.mark.slow

MANIFESTS = [f"table-{number:02d}" for number in (1, 4, 5, 15, 18)]
JOBS = {place: job for place, job in jobs_of(MANIFESTS).items() if "data=cifar100" not in job.train}
BEIT = {"img_size": 32, "embed_dim": 24, "depth": 2, "num_heads": 2}
"""A network of BEiT-L's family, but small and for small images."""


def composed(place: str) -> DictConfig:
    return compose(JOBS[place].train)


# table/row: teacher, student, (ce_weight, wmse_weight, gamma, warm-up) as the official configurations have them
IMAGENET = {"epochs": 100, "batch_size": 512, "lr": 0.2, "weight_decay": 1e-4}
LONG_TAIL = {"epochs": 90, "batch_size": 128, "lr": 0.05, "weight_decay": 5e-4}
PAIRS: list[tuple[str, str, str, tuple[float, float, float | None, int], dict[str, Any]]] = [
    ("table-01/ikl-kd", "resnet34.tv_in1k", "resnet18", (1, 0.5, None, 1), IMAGENET),
    ("table-04/resnet34-resnet18-ikl", "resnet34.tv_in1k", "resnet18", (1, 0.5, None, 1), IMAGENET),
    ("table-04/resnet34-resnet18-gkl", "resnet34.tv_in1k", "resnet18", (1, 0.5, 0.6, 5), IMAGENET),
    ("table-04/resnet50-mobilenetv1-ikl", "resnet50.tv_in1k", "mobilenetv1", (4, 1, None, 1), IMAGENET),
    ("table-04/resnet50-mobilenetv1-gkl", "resnet50.tv_in1k", "mobilenetv1", (4, 1, 0.5, 5), IMAGENET),
    ("table-05/resnet18-ikl", "resnext101_32x4d", "resnet18", (4, 4, None, 0), LONG_TAIL),
    ("table-05/resnet18-gkl", "resnext101_32x4d", "resnet18", (4, 4, 0.3, 0), LONG_TAIL),
    ("table-05/resnet50-ikl", "resnext101_32x4d", "resnet50", (3, 4, None, 0), LONG_TAIL),
    ("table-05/resnet50-gkl", "resnext101_32x4d", "resnet50", (3, 4, 0.3, 0), LONG_TAIL),
    ("table-18/resnet50-resnet50-ikl", "resnet50", "resnet50", (1, 1, None, 0), LONG_TAIL),
    ("table-18/resnet50-resnet50-gkl", "resnet50", "resnet50", (1, 1, 0.3, 0), LONG_TAIL),
    ("table-18/resnet18-resnet18-ikl", "resnet18", "resnet18", (1, 0.5, None, 0), LONG_TAIL),
]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair[0])
def test_a_pair_has_the_official_weights(pair: tuple) -> None:
    place, teacher, student, weights, sizes = pair
    cfg = composed(place)
    assert (cfg.task.teacher.name, cfg.model.name) == (teacher, student)
    loss = cfg.loss
    assert (loss.ce_weight, loss.wmse_weight, loss.get("gamma"), cfg.task.warmup_epochs) == weights
    assert (loss.ce_temperature, cfg.task.prior_temperature, cfg.task.ce_weight) == (1, 1, 1)
    by_class = sizes is IMAGENET or "gamma" in loss  # v1 leaves the class means out on ImageNet-LT
    assert (loss.weighting, loss.sample_temperature) == (("class" if by_class else "sample"), loss.sample_temperature)
    assert by_class or loss.sample_temperature == 100
    found = {key: cfg.trainer.get(key, cfg.optimizer.get(key)) for key in sizes}
    assert found == sizes
    assert (cfg.evaluation.attacks, cfg.budget.name) == ("none", "paper")


def test_kl_is_the_kd_of_its_tables() -> None:
    expected = {
        "table-01/kl-kd": (0.5, 0.5),
        **{f"table-04/{pair}-kd": (0.5, 0.5) for pair in ("resnet34-resnet18", "resnet50-mobilenetv1")},
        "table-05/resnet18-kl": (1, 4),
        "table-05/resnet50-kl": (1, 3),
        "table-18/resnet50-resnet50-kl": (1, 1),
        "table-18/resnext101-resnet50-kl": (1, 3),
        "table-18/resnet18-resnet18-kl": (1, 4),
        "table-15/kd": (1, 1),
    }
    for place, weights in expected.items():
        cfg = composed(place)
        assert cfg.loss._target_ == "dkl.losses.KD"
        assert (cfg.task.ce_weight, cfg.loss.weight, cfg.loss.logit_temperature, cfg.task.warmup_epochs) == (
            *weights,
            1,
            0,
        )
    for pair, beta in (("resnet34-resnet18", 0.5), ("resnet50-mobilenetv1", 2)):
        cfg = composed(f"table-04/{pair}-dkd")
        assert (cfg.loss.alpha, cfg.loss.beta, cfg.loss.logit_temperature, cfg.task.warmup_epochs) == (1, beta, 1, 1)


def test_tables_share_runs() -> None:
    pairs = [
        ("table-01/ikl-kd", "table-04/resnet34-resnet18-ikl"),
        ("table-01/kl-kd", "table-04/resnet34-resnet18-kd"),
        ("table-05/resnet50-kl", "table-18/resnext101-resnet50-kl"),
        ("table-05/resnet50-ikl", "table-18/resnext101-resnet50-ikl"),
        ("table-05/resnet50", "table-18/teacher resnet50"),
        ("table-05/teacher resnext101", "table-18/teacher resnext101"),
    ]
    for one, other in pairs:
        assert identity(JOBS[one]) == identity(JOBS[other]), one


def without_weights(cfg: DictConfig) -> DictConfig:
    """``cfg`` with a freshly initialized teacher, and a small one instead of BEiT-L."""
    if "teacher" in cfg.task:
        asked = {key: cfg.task.teacher[key] for key in ("name", "num_classes", "in_chans", "mean", "std")}
        asked |= BEIT if "beit" in cfg.task.teacher.name else {}
        OmegaConf.update(cfg, "task.teacher", {"_target_": "dkl.models.create_model", **asked}, merge=False)
    return cfg


@pytest.mark.parametrize("job", (found := one_per_path(JOBS)).values(), ids=found)
def test_a_run_trains_two_batches(job: ManifestJob) -> None:
    kept = [text for text in job.train if not text.startswith("budget=")]
    small = ["data.shape=[3,32,32]", "trainer.batch_size=4", "trainer.device=cpu", "trainer.workers=0"]
    small += ["budget=own", "data.augment.randaugment=null", "data.augment.interpolation=bilinear"]
    small += ["loss.distances=classifier"] if "loss=wkd" in kept else []  # those of features need images of every class
    assert share_moved(without_weights(compose_config("train", [*kept, *small]))) > 0.9


def test_published_teachers_exist_and_take_the_students_images() -> None:
    """timm publishes each for the size, normalization and classes of the data."""
    teachers = {name: cfg for name in JOBS if "teacher" in (cfg := composed(name)).task and cfg.task.teacher.pretrained}
    assert {name.partition("/")[0] for name in teachers} == {"table-01", "table-04", "table-15"}
    for name in {cfg.task.teacher.name: place for place, cfg in teachers.items()}.values():
        cfg = teachers[name]
        known = timm.models.get_pretrained_cfg(cfg.task.teacher.name)
        assert known.has_weights
        assert list(known.input_size) == cfg.data.shape
        assert (list(known.mean), list(known.std)) == (cfg.data.mean, cfg.data.std)
        with torch.device("meta"), torch.no_grad():
            network = timm.create_model(cfg.task.teacher.name).eval()
            assert network(torch.empty(2, *cfg.data.shape)).shape == (2, cfg.data.num_classes)


@pytest.mark.parametrize("name", MANIFESTS)
def test_budget_smoke_trains_teachers_and_downloads_nothing(name: str) -> None:
    jobs = plan(name, Request(budget="smoke"))
    assert {job.title for job in jobs if job.teacher is None} >= {job.teacher for job in jobs if job.teacher}
    assert not [text for job in jobs for text in job.train if text.startswith("task.teacher.pretrained")]
    taught = [job for job in jobs if any(text.startswith("task.teacher.") for text in job.train)]
    assert all(job.teacher for job in taught)
    assert len(taught) == sum(row.teacher is not None for row in load(name).runnable)


def test_a_published_teacher_can_be_read_from_a_file() -> None:
    given = ("task.teacher.checkpoint=/elsewhere/resnet34.pth",)
    (job,) = plan("table-04", Request(seeds=(0,), row="resnet34-resnet18-ikl", overrides=given))
    teacher = compose_config("train", job.train).task.teacher
    assert (teacher.name, teacher.pretrained) == ("resnet34.tv_in1k", True)
    assert teacher.checkpoint == "/elsewhere/resnet34.pth"
    with pytest.raises(UserError, match="is one teacher, but these rows have resnet34, resnet50"):
        plan("table-04", Request(seeds=(0,), overrides=given))

"""Helpers for tests of manifest rows: cached composition, and two training steps on random images."""

import io
import re
from collections.abc import Iterable
from functools import cache

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from rich.console import Console

from dkl.assembly import build_averaging, build_model, build_schedule, build_task, load_synthetic, make_batches
from dkl.config import TrainConfig, compose_config, compose_run, typed
from dkl.console import Bar
from dkl.data import Images
from dkl.manifests import ManifestJob, Request, plan
from dkl.training.averaging import Average
from dkl.training.loop import train_epoch
from dkl.training.optimizer import apply_schedule, make_optimizer

"""Composes each row once for all tests of these files."""


def compose(overrides: Iterable[str]) -> DictConfig:
    return compose_run(tuple(overrides)).cfg.copy()


def jobs_of(manifests: Iterable[str]) -> dict[str, ManifestJob]:
    """The jobs of ``manifests`` at seed 0 by ``manifest/row``."""
    return {f"{name}/{job.name}": job for name in manifests for job in plan(name, Request(seeds=(0,)))}


def one_per_path(jobs: dict[str, ManifestJob]) -> dict[str, ManifestJob]:
    """The first job of each code path: other jobs differ from it in numbers, or in networks that no code looks into."""
    found: dict[frozenset[str], tuple[str, ManifestJob]] = {}
    for place, job in jobs.items():
        found.setdefault(path(job.train), (place, job))
    return dict(found.values())


def path(overrides: Iterable[str]) -> frozenset[str]:
    """The overrides that decide which code trains. Feature distillation also depends on the shapes of the networks."""
    overrides = list(overrides)
    networks = () if {"task=at", "task=fitnet", "task=reviewkd"} & {*overrides} else ("model=", "task.teacher.name=")
    ignored = ("budget=", "label=", "seed=", "task.teacher.run=", "paths.", *networks)
    texts = {re.sub(r"(?<=\D)\d+(m?)$", r"N\1", text) for text in overrides if not text.startswith(ignored)}
    return frozenset(text for text in texts if not re.search(r"=-?[\d.N]+(e-?[\dN]+)?$", text))


def identity(job: ManifestJob) -> str:
    return compose_run(job.train).row


@cache
def check_evaluation(overrides: tuple[str, ...]) -> str:
    """The attacks of an evaluation that composes and resolves."""
    cfg = compose_config("evaluate", ["run=somewhere", *overrides])
    OmegaConf.to_container(cfg, resolve=True)
    return str(cfg.attacks)


def share_moved(cfg: DictConfig) -> float:
    """The share of the task's parameters that two batches of four images change; the loss must be finite."""
    model = build_model(cfg.model)
    task, rule = build_task(cfg.task, model), build_averaging(cfg.averaging)
    optimizer = make_optimizer(cfg.optimizer, task.named_parameters())
    labels = torch.arange(8) * (cfg.data.num_classes // 8) % cfg.data.num_classes
    images = Images(torch.randint(256, (8, *cfg.data.shape), dtype=torch.uint8), labels)
    synthetic = load_synthetic(cfg.data)
    batches = make_batches(typed(cfg, TrainConfig), images, torch.device("cpu"), training=True, synthetic=synthetic)
    before = [parameter.detach().clone() for _, parameter in task.named_parameters()]
    average = Average(rule, model) if rule else None
    epochs, bar = cfg.trainer.epochs, Bar("", 2, 0, Console(file=io.StringIO()))
    apply_schedule(build_schedule(cfg.schedule), optimizer, lr=cfg.optimizer.lr, epoch=10, epochs=epochs)
    row = train_epoch(task, batches, optimizer, epoch=10, epochs=epochs, bar=bar)
    if average:
        average.update(model, 1, 1)
    assert np.isfinite(row["loss"])
    moved = [not torch.equal(one, now) for one, (_, now) in zip(before, task.named_parameters(), strict=True)]
    return float(np.mean(moved))

"""What tests of manifests' rows share: two real steps of a configuration on random images."""

import io

import numpy as np
import torch
from omegaconf import DictConfig
from rich.console import Console

from dkl.assembly import build_model, build_schedule, build_task, make_batches
from dkl.config import TrainConfig, typed
from dkl.console import Bar
from dkl.data import Images
from dkl.training.loop import train_epoch
from dkl.training.optimizer import apply_schedule, make_optimizer


def share_moved(cfg: DictConfig) -> float:
    """The share of the student's parameters that two batches of four images move; their loss is finite."""
    model = build_model(cfg.model)
    task = build_task(cfg.task, model)
    optimizer = make_optimizer(cfg.optimizer, task.named_parameters())
    labels = torch.arange(8) * (cfg.data.num_classes // 8)
    images = Images(torch.randint(256, (8, *cfg.data.shape), dtype=torch.uint8), labels)
    batches = make_batches(typed(cfg, TrainConfig), images, torch.device("cpu"), training=True)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    epochs, bar = cfg.trainer.epochs, Bar("", 2, 0, Console(file=io.StringIO()))
    apply_schedule(build_schedule(cfg.schedule), optimizer, lr=cfg.optimizer.lr, epoch=10, epochs=epochs)
    row = train_epoch(task, batches, optimizer, epoch=10, epochs=epochs, bar=bar)
    assert np.isfinite(row["loss"])
    return float(np.mean([not torch.equal(one, now) for one, now in zip(before, model.parameters(), strict=True)]))

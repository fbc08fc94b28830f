"""``train(cfg)``: one run from configuration to finished checkpoint, taken up where it stopped."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dkl.build import build_model, build_task, load_data, make_batches, pick_device, preflight
from dkl.config import Precision, label, row_hash, run_folder
from dkl.console import Bar, bar, say
from dkl.data import Batches
from dkl.files import locked, remove_leftovers, write_text
from dkl.tasks.accuracy import correct
from dkl.training.loop import train_epoch
from dkl.training.metrics import Logger, Row, write_metrics
from dkl.training.schedules import SCHEDULES
from dkl.training.state import RunState, seed_everything

CHECKPOINT = "checkpoint.pt"


def _prepare_model(cfg: DictConfig, device: torch.device) -> nn.Module:
    model = build_model(cfg)
    if cfg.trainer.precision is Precision.float64:
        model = model.double()
    if cfg.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    model = model.to(device)
    if cfg.trainer.compile:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
        model.compile()  # in place: names of parameters stay; train, eval and the last batch need several graphs
    return model


def _new_run(cfg: DictConfig, device: torch.device, data_sha256: str) -> RunState:
    """A run before its first epoch."""
    seed_everything(cfg.seed)
    model = _prepare_model(cfg, device)
    o = cfg.optimizer
    optimizer = torch.optim.SGD(
        model.parameters(), lr=o.lr, momentum=o.momentum, nesterov=o.nesterov, weight_decay=o.weight_decay
    )
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    plain = {str(key): value for key, value in config.items()}
    return RunState(build_task(cfg, model), model, optimizer, plain, data_sha256)


def train(cfg: DictConfig) -> Path:
    """Train what ``cfg`` says, or go on with it, or do nothing where it is done; returns the run's folder.

    The folder holds ``config.yaml``, ``checkpoint.pt``, ``metrics.jsonl`` and ``metrics.csv``. Killed at any moment
    and called again with the same configuration, it ends with the same weights (bit for bit on a CPU). Raises
    UserError before any work where the configuration cannot run.
    """
    preflight(cfg)
    folder = run_folder(cfg)
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    device = pick_device(cfg.trainer.device)
    training, testing = load_data(cfg.data)
    with locked(folder / ".lock", f"another process is training {folder}"):
        remove_leftovers(folder)
        run = _new_run(cfg, device, training.sha256)
        if (folder / CHECKPOINT).exists():
            run.load(folder / CHECKPOINT)
        if run.epoch >= cfg.trainer.epochs:
            write_metrics(run.rows, folder)  # in case the process was killed between checkpoint and metrics
            say(f"{folder}: already trained, {run.epoch} epochs")
            return folder
        write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
        batches = make_batches(cfg, training, device, training=True)
        validation = make_batches(cfg, testing, device, training=False)
        _fit(cfg, run, batches, validation, folder)
    return folder


@contextmanager
def _logger(cfg: DictConfig, run: RunState, folder: Path) -> Iterator[Callable[[Row], None]]:
    """What to call with each epoch's row: the logger asked for, or nothing; closed however training ends."""
    if not cfg.logger:
        yield lambda row: None
        return
    logger: Logger = instantiate(cfg.logger)
    method = label(cfg)
    tags = [method, cfg.data.name, cfg.budget.name]
    logger.start(run.config, folder, group=f"{method}-{row_hash(cfg)}", tags=tags)
    try:
        yield logger.log
    finally:
        logger.finish()


def _one_epoch(cfg: DictConfig, run: RunState, batches: Batches, validation: Batches, epoch: int, progress: Bar) -> Row:
    """Train epoch ``epoch`` at its learning rate; its row of metrics, with test accuracy where it is due."""
    epochs, every = cfg.trainer.epochs, cfg.trainer.validate_every
    lr = cfg.optimizer.lr * SCHEDULES[cfg.optimizer.schedule.value](epoch, epochs, cfg.optimizer.warmup_epochs)
    for group in run.optimizer.param_groups:
        group["lr"] = lr
    row: Row = {"epoch": epoch, "lr": lr}
    row |= train_epoch(
        run.task,
        batches,
        run.optimizer,
        epoch=epoch,
        epochs=epochs,
        bar=progress,
        autocast=cfg.trainer.precision is Precision.bf16,
    )
    if epoch == epochs or (every and epoch % every == 0):
        row["test_accuracy"] = correct(run.model, validation.epoch()).float().mean().item()
    return row


def _fit(cfg: DictConfig, run: RunState, batches: Batches, validation: Batches, folder: Path) -> None:
    """The epochs that are left, a checkpoint after each."""
    epochs, steps = cfg.trainer.epochs, len(batches)
    say(f"{folder}: {label(cfg)}, epochs {run.epoch + 1} to {epochs} on {batches.labels.device}")
    name = f"train {label(cfg)} seed {cfg.seed}"
    with _logger(cfg, run, folder) as log, bar(name, epochs * steps, run.epoch * steps) as progress:
        for epoch in range(run.epoch + 1, epochs + 1):
            row = _one_epoch(cfg, run, batches, validation, epoch, progress)
            run.epoch = epoch
            run.rows.append(row)
            run.save(folder / CHECKPOINT)
            write_metrics(run.rows, folder)
            log(row)
            progress.advance(0, f"epoch {epoch}/{epochs} loss {row['loss']:.3f}")
    last = run.rows[-1]
    say(f"{folder}: done, loss {last['loss']:.4f}, natural test accuracy {last['test_accuracy']:.2%}")

"""``train(cfg)``: one run from configuration to finished checkpoint, taken up where it stopped."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import nn

from dkl import distributed
from dkl.assembly import (
    build_averaging,
    build_logger,
    build_model,
    build_task,
    load_data,
    load_synthetic,
    make_batches,
    pick_device,
    preflight,
)
from dkl.config import Precision, hashed, label, loss_name, row_identity, run_folder
from dkl.console import bar, say
from dkl.data import Batch, Images, ImageSet, Synthetic
from dkl.errors import UserError
from dkl.files import digest, locked, remove_leftovers, write_text
from dkl.loggers import About, Logger, opened, reported
from dkl.training.averaging import Average
from dkl.training.epochs import Epochs
from dkl.training.metrics import write_metrics
from dkl.training.optimizer import make_optimizer
from dkl.training.selection import BEST, Selection, held_out
from dkl.training.state import RunState, seed_everything

CHECKPOINT = "checkpoint.pt"
WANDB_ID = "wandb_id.txt"


def _prepare_model(cfg: DictConfig, device: torch.device) -> nn.Module:
    model = build_model(cfg)
    if cfg.trainer.precision is Precision.float64:
        model = model.double()
    if cfg.trainer.channels_last:
        model = model.to(memory_format=torch.channels_last)
    if cfg.trainer.sync_batchnorm and distributed.world() > 1:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    model = model.to(device)
    if cfg.trainer.compile:
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 32)
        model.compile()  # in place: names of parameters stay; train, eval and the last batch need several graphs
    return model


def _new_run(cfg: DictConfig, device: torch.device, data_sha256: str) -> RunState:
    """A run before its first epoch."""
    seed_everything(cfg.seed)
    model = _prepare_model(cfg, device)
    task = build_task(cfg, model)
    optimizer = make_optimizer(cfg.optimizer, task.named_parameters())
    averaging = build_averaging(cfg)
    config = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(config, dict)
    plain = {str(key): value for key, value in config.items()}
    average = Average(averaging, model) if averaging else None
    return RunState(task, model, optimizer, plain, data_sha256, average)


class Data(NamedTuple):
    """Images to train on, to test on and held out for selection, and generated ones; ``sha256`` tells all but tests."""

    training: ImageSet
    testing: ImageSet
    held_out: ImageSet | None
    synthetic: Synthetic | None
    sha256: str


def _load(cfg: DictConfig) -> Data:
    training, testing = load_data(cfg.data)
    synthetic, sha = load_synthetic(cfg.data), training.sha256
    if synthetic:
        sha = digest([sha, synthetic.sha256], length=64)
    count = held_out(cfg, len(training))
    rest, held = training.holdout(count) if count else (training, None)
    return Data(rest, testing, held, synthetic, sha)


def train(cfg: DictConfig) -> Path:
    """Train what ``cfg`` says, or go on with it, or do nothing where it is done; returns the run's folder.

    The folder holds ``config.yaml``, ``checkpoint.pt``, ``metrics.jsonl`` and ``metrics.csv``, and ``best.pt`` where
    epochs are selected. Killed at any moment and called again with the same configuration, it ends with the same
    weights (bit for bit on a CPU). ``trainer.devices`` processes share the work, started here unless torchrun has.
    Raises UserError before any work where the configuration cannot run.
    """
    started = distributed.launched()
    if started > 1 and cfg.trainer.devices == 1:
        cfg = cfg.copy()
        cfg.trainer.devices = started
    preflight(cfg)
    device = pick_device(cfg.trainer.device)
    if started > 1:
        with distributed.group(device.type):
            _train(cfg)
    elif cfg.trainer.devices > 1:
        distributed.launch(_train, (cfg,), processes=cfg.trainer.devices, device=device.type)
    else:
        _train(cfg)
    return run_folder(cfg)


def _train(cfg: DictConfig) -> None:
    """``train`` in one process of however many."""
    folder, first = run_folder(cfg), distributed.rank() == 0
    if cfg.trainer.threads:
        torch.set_num_threads(cfg.trainer.threads)
    device = distributed.local_device(pick_device(cfg.trainer.device))
    if first:
        data = _load(cfg)  # and fetches what is missing, for all
    distributed.barrier()
    if not first:
        data = _load(cfg)
    if OmegaConf.select(cfg, "task.cache_teacher") and not isinstance(data.training, Images):
        raise UserError("images read from files are cropped at random, each time anew: set task.cache_teacher=false")
    with locked(folder / ".lock", f"another process is training {folder}") if first else nullcontext():
        if first:
            remove_leftovers(folder)
        run = _new_run(cfg, device, data.sha256)
        if (folder / CHECKPOINT).exists():
            run.load(folder / CHECKPOINT)
        distributed.barrier()  # nobody writes what another still reads
        if run.epoch < cfg.trainer.epochs:
            _fit(cfg, run, data, folder, device)
        elif first:
            write_metrics(run.rows, folder)  # in case the process was killed between checkpoint and metrics
            say(f"{folder}: already trained, {run.epoch} epochs")
            if cfg.logger and not reported(folder / WANDB_ID):
                with _logged(cfg, run, folder):
                    pass


def _unchanged(cfg: DictConfig, images: ImageSet, device: torch.device) -> Iterator[Batch]:
    """``images`` in order and as they are, read once a task asks for them."""
    yield from make_batches(cfg, images, device, training=False).epoch()


@contextmanager
def _logged(cfg: DictConfig, run: RunState, folder: Path) -> Iterator[Logger]:
    """Where epochs are reported beside the files, those done before included; it gets the weights in the end."""
    about = About(
        name=folder.name,
        job_type="train",
        group=f"{label(cfg)}-{row_identity(hashed(cfg))}",
        tags=list(dict.fromkeys([label(cfg), loss_name(cfg), cfg.data.name, cfg.budget.name])),
        config=run.config,
        id_file=folder / WANDB_ID,
    )
    with opened(build_logger(cfg.logger), about, run.rows) as logger:
        yield logger
        logger.keep([path for name in (CHECKPOINT, BEST, "config.yaml") if (path := folder / name).exists()])


def _fit(cfg: DictConfig, run: RunState, data: Data, folder: Path, device: torch.device) -> None:
    """The epochs that are left, a checkpoint after each."""
    size = len(data.training) + (len(data.held_out) if data.held_out else 0)
    batches = make_batches(cfg, data.training, device, training=True, synthetic=data.synthetic, epoch_size=size)
    validation = make_batches(cfg, data.testing, device, training=False)
    selection = None
    if data.held_out:
        selection = Selection(cfg, run, make_batches(cfg, data.held_out, device, training=False), folder)
    epochs, steps, first = cfg.trainer.epochs, len(batches), distributed.rank() == 0
    if first:
        write_text(folder / "config.yaml", OmegaConf.to_yaml(cfg))
    say(f"{folder}: {label(cfg)}, epochs {run.epoch + 1} to {epochs} on {cfg.trainer.devices} x {device.type}")
    run.task.before_training(validation.epoch(), _unchanged(cfg, data.training, device))
    name = f"train {label(cfg)} seed {cfg.seed}"
    with _logged(cfg, run, folder) as logger, bar(name, epochs * steps, run.epoch * steps) as progress:
        one = Epochs(cfg, run, batches, validation, selection, folder, progress)
        for epoch in range(run.epoch + 1, epochs + 1):
            row = one.train(epoch)
            run.epoch = epoch
            run.rows.append(row)
            if first:
                run.save(folder / CHECKPOINT)
                write_metrics(run.rows, folder)
            logger.log(row)
            progress.advance(0, f"epoch {epoch}/{epochs} loss {row['loss']:.3f}")
    last = run.rows[-1]
    say(f"{folder}: done, loss {last['loss']:.4f}, natural test accuracy {last['test_accuracy']:.2%}")

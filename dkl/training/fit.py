"""``fit(run)``: train the epochs that are left of a run.

The state is saved after every epoch and, within one, every five minutes and when a signal asks the run to end. The same
command then continues with the next step.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import update_bn

from dkl.config import TrainerConfig
from dkl.config.schema import Precision, SelectionConfig
from dkl.console import Bar, bar, say
from dkl.data import Batch, Loader
from dkl.errors import UserError
from dkl.loggers import Logger, LoggerRun, opened
from dkl.runtime.device import arithmetic
from dkl.runtime.distributed import barrier, gather, largest, rank, share_buffers, world
from dkl.runtime.interruption import Flag, Interrupted, deferred
from dkl.storage import checkpoint
from dkl.storage.files import locked, write_text
from dkl.training.loop import EpochSums, NonFiniteLossError, train_epoch
from dkl.training.optimizer import apply_schedule
from dkl.training.schedules import Schedule
from dkl.training.selection import Selection
from dkl.training.state import BEST, CHECKPOINT, MetricsRow, RunState, write_metrics

SAVE_EVERY_SECONDS = 300.0
"""A run that is killed loses at most so much work."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """All objects of one training run in one process; ``dkl.assembly.assemble`` builds them.

    ``label`` is the method's name in tables. ``peak_lr`` is the rate that ``schedule`` scales. ``plain_batches`` makes
    a loader of the training images in order, without augmentation. ``held_out`` batches measure robust accuracy; None
    without selection. ``config_yaml`` is the text of ``config.yaml``. ``unusual`` describes the settings outside the
    values in common use, which are the likely causes of a loss that is not finite.
    """

    label: str
    seed: int
    folder: Path
    device: torch.device
    state: RunState
    schedule: Schedule
    peak_lr: float
    trainer: TrainerConfig
    batches: Loader
    validation: Loader
    plain_batches: Callable[[], Loader]
    selection: SelectionConfig
    held_out: Loader | None
    logger: Logger
    about: LoggerRun
    config_yaml: str
    unusual: Sequence[str] = ()

    def save(self) -> None:
        """Write the checkpoint. Raises UserError if the folder was deleted during training."""
        if not (self.folder / "config.yaml").is_file():
            raise UserError(f"{self.folder} was deleted or moved during training: give the same command again")
        self.state.save(self.folder / CHECKPOINT)


def fit(run: Run) -> None:
    """Train ``run`` in one process of however many, from its checkpoint if it has one.

    Killed at any moment and called again, it ends with the same weights, bit for bit on a CPU. On SIGINT and SIGTERM it
    saves its state after the current step, and raises Interrupted. Of several processes the first reads and writes the
    folder for all. Raises UserError if another process trains in the same folder, if the folder's checkpoint is not of
    this run, or if the processes would not start from the same state.
    """
    folder, state, trainer, first = run.folder, run.state, run.trainer, rank() == 0
    alone = locked(folder / ".lock", f"another process is training {folder}") if first else nullcontext()
    precise = partial(arithmetic, products=trainer.matmul.value, convolutions=trainer.matmul.value, fastest=True)
    with alone, precise(run.device, deterministic=trainer.deterministic):
        state.load(folder)
        if state.epoch >= trainer.epochs:
            _report_finished(run)
            return
        selection = _prepare(run)
        with _reporting(run) as (logger, progress), _stopping(run) as flag:
            for epoch in range(state.epoch + 1, trainer.epochs + 1):
                row = state.partial.get("row")  # of an epoch whose measurements were interrupted
                if row is None:
                    rate = _set_rate(run, epoch)
                    with _explained_failures(run, epoch):
                        means = train_epoch(
                            state.task,
                            run.batches,
                            state.optimizer,
                            epoch=epoch,
                            epochs=trainer.epochs,
                            bar=progress,
                            accumulate=trainer.accumulate,
                            autocast=trainer.precision is Precision.bf16,
                            before_step=partial(_set_rate, run, epoch),
                            after_step=partial(_after_step, run, flag, epoch),
                            so_far=_resumed_sums(run),
                        )
                    row = {"epoch": epoch, "lr": rate, **means}
                    _finish_average(run, epoch)
                row |= _measure(run, row, selection)
                state.epoch, state.partial = epoch, {}
                state.rows.append(row)
                state.collect_rng()
                if first:
                    run.save()
                    write_metrics(state.rows, folder)
                logger.log(row)
                progress.advance(0, f"epoch {epoch}/{trainer.epochs} loss {row['loss']:.3f}")
        last = state.rows[-1]
        miou = f", mean IoU {last['test_miou']:.2%}" if "test_miou" in last else ""
        say(f"{folder}: done, loss {last['loss']:.4f}, natural test accuracy {last['test_accuracy']:.2%}{miou}")


def _report_finished(run: Run) -> None:
    """Keep what this command says about a finished run, such as its label, and report to a logger that lacks it."""
    if rank() > 0:
        return
    folder, path, change = run.folder, run.folder / "config.yaml", ""
    write_metrics(run.state.rows, folder)  # a kill between checkpoint and metrics leaves the last row out
    if not path.exists() or path.read_text(encoding="utf-8") != run.config_yaml:
        # The folder's name fixes everything that was trained: only other settings can differ.
        write_text(path, run.config_yaml)
        change = f"; label {run.label}, evaluation and logger are now those of this command"
    say(f"{folder}: already trained, {run.state.epoch} epochs{change}")
    if not run.logger.reported(run.about):
        with _opened_logger(run):
            pass


def _prepare(run: Run) -> Selection | None:
    """Write the configuration, let the task prepare, and make the selection, if the run has one."""
    state, folder = run.state, run.folder
    # After the checkpoint is loaded: the selection compares its own file with the best accuracy in there.
    selection = Selection(run.selection, state, run.held_out, folder) if run.held_out else None
    if rank() == 0:
        write_text(folder / "config.yaml", run.config_yaml)
    state.devices += [] if world() in state.devices else [world()]
    # The training images in order and unchanged; their loader is made only if the task reads from it.
    state.task.before_training(_Epochs(run.validation.epoch), _Epochs(lambda: run.plain_batches().epoch()))
    return selection


@dataclass(frozen=True)
class _Epochs(Iterable[Batch]):
    """The batches of a new ``epoch`` whenever they are iterated."""

    epoch: Callable[[], Iterator[Batch]]

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch()


@contextmanager
def _opened_logger(run: Run) -> Iterator[Logger]:
    """Open the run's logger, report the epochs done before, and give it the weights at the end."""
    with opened(run.logger, run.about, run.state.rows) as logger:
        yield logger
        files = (run.folder / name for name in (CHECKPOINT, BEST, "config.yaml"))
        logger.keep([path for path in files if path.exists()])


@contextmanager
def _reporting(run: Run) -> Iterator[tuple[Logger, Bar]]:
    """Open the run's logger, announce the epochs that are left, and show their progress."""
    state, epochs, steps = run.state, run.trainer.epochs, len(run.batches)
    done = state.epoch * steps + state.partial.get("step", 0)
    with _opened_logger(run) as logger:
        # After all that may refuse to start: a login is missing, or the teacher's weights are not of these classes.
        left = f"epochs {state.epoch + 1} to {epochs}"
        say(f"{run.folder}: {run.label}, {left} on {run.trainer.devices} x {run.device.type}")
        with bar(f"train {run.label} seed {run.seed}", epochs * steps, done) as progress:
            yield logger, progress


@contextmanager
def _stopping(run: Run) -> Iterator[Flag]:
    """Let signals set a flag in the body; if one ends it, name the place from which the run continues."""
    try:
        with deferred() as flag:
            yield flag
    except Interrupted as stop:
        state, epochs = run.state, run.trainer.epochs
        step = state.partial.get("step")
        batch = f", batch {step} of {len(run.batches)}" if step else ""
        stop.place = f"at epoch {min(state.epoch + 1, epochs)} of {epochs}{batch}"
        raise


def _set_rate(run: Run, epoch: int, step: int = 0) -> float:
    """Set the learning rate of ``step``, counted from 0, of ``epoch``; returns it."""
    steps, now, total = len(run.batches), epoch, run.trainer.epochs
    if run.schedule.per == "step":
        now, total = (epoch - 1) * steps + step + 1, total * steps
    return apply_schedule(run.schedule, run.state.optimizer, lr=run.peak_lr, epoch=now, epochs=total)


def _resumed_sums(run: Run) -> EpochSums:
    """What this process has measured of the epoch before an interruption; the class prior's sums are restored."""
    state, processes = run.state, run.state.partial.get("processes", [])
    if not processes:
        return EpochSums()
    share = processes[rank()] if len(processes) == world() else merged(processes, first=rank() == 0)
    if state.task.prior is not None:
        state.task.prior.sums.copy_(share["prior_sums"])
    return EpochSums.from_state(share, run.batches.labels.device)


def merged(processes: Sequence[dict[str, Any]], *, first: bool) -> dict[str, Any]:
    """Restore this process's share of an interrupted epoch's sums, which another number of ``processes`` measured.

    The ``first`` takes all sums, the others take zeros.
    """

    def total(values: Sequence[Any]) -> Any:
        if isinstance(values[0], dict):  # a process may lack a name
            names = dict.fromkeys(name for value in values for name in value)
            return {name: total([value[name] for value in values if name in value]) for name in names}
        return sum(values, 0 * values[0]) if first else 0 * values[0]

    fixed = {key: processes[0][key] for key in ("step", "seconds")}
    return {key: total([process[key] for process in processes]) for key in processes[0]} | fixed


def _after_step(run: Run, flag: Flag, epoch: int, so_far: EpochSums) -> None:
    """Update the average after a step; save the state if it is time to, or if a signal asks the run to end."""
    state, steps, first = run.state, len(run.batches), rank() == 0
    if state.average is not None and state.average.rule.per == "step":
        state.average.update(state.model, (epoch - 1) * steps + so_far.step, run.trainer.epochs * steps)
    # All processes agree, by one message: they would wait for one that saves or ends alone.
    due = first and time.monotonic() - state.saved_at >= SAVE_EVERY_SECONDS
    signum, save = divmod(largest(2 * flag.signum + due), 2)
    if not signum and not save:
        return
    flag.be_patient()
    prior = state.task.prior
    measured = so_far.state_dict() | ({} if prior is None else {"prior_sums": prior.sums.cpu()})
    state.partial = {"step": so_far.step, "processes": gather(measured)}
    state.collect_rng()
    if first:
        run.save()
    if signum:
        barrier()  # no process ends before the first has saved
        flag.act(signum)


def _finish_average(run: Run, epoch: int) -> None:
    """Update the average before anything is measured, so that its accuracy includes this epoch."""
    average, epochs = run.state.average, run.trainer.epochs
    if average is None:
        return
    if average.rule.per == "epoch":
        average.update(run.state.model, epoch, epochs)
    if epoch == epochs and average.rule.buffers == "estimate":
        # BatchNorm's statistics of the averaged weights. Epoch 0 has draws of its own: training counts from 1.
        update_bn(run.batches.epoch(0), average.model)
    # Its buffers follow those of this process, but all processes measure, and the first saves.
    share_buffers(average.model)


def _measure(run: Run, row: MetricsRow, selection: Selection | None) -> MetricsRow:
    """Measure test accuracy and robust accuracy if they are due; ``row`` is what the steps of the epoch gave.

    Measuring changes nothing that is saved: a run that fails in it measures again, without the steps before it.
    """
    state, epoch, epochs, every = run.state, row["epoch"], run.trainer.epochs, run.trainer.validate_every
    measured: MetricsRow = {}
    state.collect_rng()
    try:
        if epoch == epochs or (every and epoch % every == 0):
            networks = {"test": state.model} | ({"average_test": state.average.model} if state.average else {})
            for prefix, network in networks.items():
                metrics = state.task.test(network, _Epochs(run.validation.epoch))
                measured |= {f"{prefix}_{name}": value for name, value in metrics.items()}
        return measured | (selection.after(epoch, epochs) if selection else {})
    except (Interrupted, UserError, OSError):  # such as a test image that cannot be read
        state.partial = {"step": len(run.batches), "row": row}
        if rank() == 0:
            run.save()
        raise


@contextmanager
def _explained_failures(run: Run, epoch: int) -> Iterator[None]:
    """Turn failures of a step into a UserError with a fix; what gave a loss that is not finite is kept in a file."""
    try:
        yield
    except NonFiniteLossError as error:
        fix = "lower optimizer.lr or the loss weights, or train in float32 if trainer.precision is bf16"
        if run.unusual:
            fix = f"the likely cause is {', or '.join(run.unusual)}"
        raise UserError(
            f"{error}; {fix}. {_keep_batch(run, error)} holds that batch, its adversarial images and the weights "
            "before the step; the last checkpoint is kept"
        ) from None
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise UserError(
            f"BatchNorm cannot normalize a part of one image in epoch {epoch}: choose another trainer.batch_size, "
            "set trainer.drop_last=true, or lower trainer.accumulate or trainer.devices"
        ) from None


def _keep_batch(run: Run, error: NonFiniteLossError) -> Path:
    """Write everything that the failed step needs, so that the failure can be repeated without the run."""
    progress, state = error.progress, run.state
    path = run.folder / f"nonfinite-epoch{progress.epoch}-batch{progress.step}-rank{rank()}.pt"
    content = {
        "model": state.model.state_dict(),
        "task": state.task.state_dict(),
        "images": error.batch.images,
        "labels": error.batch.labels,
        "adversarial_images": error.out.adversarial_images,
        "loss": error.out.loss.item(),
        "epoch": progress.epoch,
        "batch": progress.step,
        "config": state.config,
    }
    checkpoint.save(path, content)
    return path

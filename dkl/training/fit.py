"""``fit(run)``: train the epochs that are left of a run, with a checkpoint after each."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from dkl import distributed
from dkl.console import bar, say
from dkl.data import Batch
from dkl.files import locked, remove_leftovers, write_text
from dkl.loggers import Logger, opened, reported
from dkl.training.epochs import Epochs
from dkl.training.metrics import write_metrics
from dkl.training.run import Run
from dkl.training.selection import BEST, Selection

CHECKPOINT = "checkpoint.pt"


def fit(run: Run) -> None:
    """Train ``run`` in one process of however many, from its checkpoint if it has one.

    Killed at any moment and called again, it ends with the same weights, bit for bit on a CPU. Raises UserError if
    another process trains in the same folder, or if the folder's checkpoint is not of this run.
    """
    folder, state, first = run.folder, run.state, distributed.rank() == 0
    with locked(folder / ".lock", f"another process is training {folder}") if first else nullcontext():
        if first:
            remove_leftovers(folder)
        if (folder / CHECKPOINT).exists():
            state.load(folder / CHECKPOINT)
        distributed.barrier()  # so that no process writes a file that another still reads
        if state.epoch < run.trainer.epochs:
            _train_epochs(run)
        elif first:
            write_metrics(state.rows, folder)  # a kill between checkpoint and metrics leaves the last row out
            say(f"{folder}: already trained, {state.epoch} epochs")
            if not reported(run.about.id_file):
                with _opened_logger(run):
                    pass


@contextmanager
def _opened_logger(run: Run) -> Iterator[Logger]:
    """Open the run's logger, report the epochs done before, and give it the weights at the end."""
    with opened(run.logger, run.about, run.state.rows) as logger:
        yield logger
        files = (run.folder / name for name in (CHECKPOINT, BEST, "config.yaml"))
        logger.keep([path for path in files if path.exists()])


def _read_when_asked(run: Run) -> Iterator[Batch]:
    """Yield the training images in order and unchanged; the loader is made only if the task reads from it."""
    yield from run.plain_batches().epoch()


def _train_epochs(run: Run) -> None:
    folder, state, trainer, steps = run.folder, run.state, run.trainer, len(run.batches)
    first = distributed.rank() == 0
    # After the checkpoint is loaded: the selection compares its own file with the best accuracy in there.
    selection = Selection(run.selection, state, run.held_out, folder) if run.held_out else None
    if first:
        write_text(folder / "config.yaml", run.config_yaml)
    left = f"epochs {state.epoch + 1} to {trainer.epochs}"
    say(f"{folder}: {run.label}, {left} on {trainer.devices} x {run.device.type}")
    state.task.before_training(run.validation.epoch(), _read_when_asked(run))
    name = f"train {run.label} seed {run.seed}"
    with _opened_logger(run) as logger, bar(name, trainer.epochs * steps, state.epoch * steps) as progress:
        epochs = Epochs(run, selection, progress)
        for epoch in range(state.epoch + 1, trainer.epochs + 1):
            row = epochs.train(epoch)
            state.epoch = epoch
            state.rows.append(row)
            if first:
                state.save(folder / CHECKPOINT)
                write_metrics(state.rows, folder)
            logger.log(row)
            progress.advance(0, f"epoch {epoch}/{trainer.epochs} loss {row['loss']:.3f}")
    last = state.rows[-1]
    say(f"{folder}: done, loss {last['loss']:.4f}, natural test accuracy {last['test_accuracy']:.2%}")

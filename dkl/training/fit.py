"""``fit(run)``: train the epochs that are left of a run, with a checkpoint after each."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import BinaryIO

from dkl.console import bar, say
from dkl.data import Batch
from dkl.errors import UserError
from dkl.loggers import Logger, opened
from dkl.runtime import distributed
from dkl.runtime.interruption import Deferral, Interrupted, deferred
from dkl.storage import checkpoint
from dkl.storage.files import locked, remove_leftovers, write_atomically, write_text
from dkl.training.epochs import Epochs
from dkl.training.metrics import METRICS, write_metrics
from dkl.training.run import Run
from dkl.training.selection import BEST, Selection
from dkl.training.state import CHECKPOINT


def fit(run: Run) -> None:
    """Train ``run`` in one process of however many, from its checkpoint if it has one.

    Killed at any moment and called again, it ends with the same weights, bit for bit on a CPU. On SIGINT and SIGTERM it
    saves its state if that is quick, and raises Interrupted. Of several processes the first reads and writes the folder
    for all. Raises UserError if another process trains in the same folder, if the folder's checkpoint is not of this
    run, or if the processes would not start from the same state.
    """
    folder, state, first = run.folder, run.state, distributed.rank() == 0
    with locked(folder / ".lock", f"another process is training {folder}") if first else nullcontext():
        if first:
            remove_leftovers(folder)
        _load(run)
        if state.epoch < run.trainer.epochs:
            _train_epochs(run)
        elif first:
            write_metrics(state.rows, folder)  # a kill between checkpoint and metrics leaves the last row out
            say(f"{folder}: already trained, {state.epoch} epochs{_update_config(run)}")
            if not run.logger.reported(run.about):
                with _opened_logger(run):
                    pass


def _update_config(run: Run) -> str:
    """Keep what this command says about a finished run, such as its label; return the words that report a change."""
    path = run.folder / "config.yaml"
    if path.exists() and path.read_text(encoding="utf-8") == run.config_yaml:
        return ""
    # The folder's name fixes everything that was trained: only other settings can differ.
    write_text(path, run.config_yaml)
    return f"; label {run.label}, evaluation and logger are now those of this command"


def _collect(folder: Path) -> None:
    """Give process 0 the run's files of the process whose ``folder`` has trained the most epochs.

    The machines may share no folder, and when torchrun restarts them, process 0 may be on another one.
    """
    metrics = folder / METRICS
    done = len(metrics.read_text("utf-8").splitlines()) if metrics.exists() else 0
    epochs = distributed.gather(done if (folder / CHECKPOINT).exists() else -1)
    source = epochs.index(max(epochs))
    if epochs[source] <= epochs[0]:
        return
    here = distributed.rank() == source
    for name in (BEST, CHECKPOINT, METRICS):  # the metrics last: their length says that the others are complete
        path = folder / name
        content = distributed.from_process(source, path.read_bytes() if here and path.exists() else None)
        if content is not None and distributed.rank() == 0:
            write_atomically(path, partial(_write, content))


def _write(content: bytes, file: BinaryIO) -> None:
    file.write(content)


def _load(run: Run) -> None:
    """Continue from the checkpoint of process 0 in all processes: their folders may be on machines that share none."""
    path = run.folder / CHECKPOINT
    _collect(run.folder)
    found = checkpoint.read(path) if distributed.rank() == 0 and path.exists() else None
    if (content := distributed.from_first(found)) is not None:
        run.state.restore(content, path)
    if distributed.world() == 1:
        return
    # Gradients of different weights would be summed without any error.
    fingerprints = distributed.gather(run.state.fingerprint())
    if other := next((number for number, one in enumerate(fingerprints) if one != fingerprints[0]), 0):
        raise UserError(
            f"process {other} would train other weights or other images than process 0: give every machine the same "
            "versions of dkl and torch, the same images and the same teacher, best in folders that all share"
        )


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


@contextmanager
def _ending(run: Run) -> Iterator[Deferral]:
    """Defer signals in the body; name the epoch if one ends it."""
    try:
        with deferred() as deferral:
            yield deferral
    except Interrupted as stop:
        epochs = run.trainer.epochs
        stop.place = stop.place or f"at epoch {min(run.state.epoch + 1, epochs)} of {epochs}"
        raise


def _train_epochs(run: Run) -> None:
    folder, state, trainer, steps = run.folder, run.state, run.trainer, len(run.batches)
    first = distributed.rank() == 0
    # After the checkpoint is loaded: the selection compares its own file with the best accuracy in there.
    selection = Selection(run.selection, state, run.held_out, folder) if run.held_out else None
    if first:
        write_text(folder / "config.yaml", run.config_yaml)
    state.devices += [] if distributed.world() in state.devices else [distributed.world()]
    state.task.before_training(run.validation.epoch(), _read_when_asked(run))
    name = f"train {run.label} seed {run.seed}"
    total, done = trainer.epochs * steps, state.epoch * steps + state.partial.get("step", 0)
    with _opened_logger(run) as logger, _ending(run) as deferral:
        # After all that may refuse to start: a login is missing, or the teacher's weights are not of these classes.
        left = f"epochs {state.epoch + 1} to {trainer.epochs}"
        say(f"{folder}: {run.label}, {left} on {trainer.devices} x {run.device.type}")
        with bar(name, total, done) as progress:
            epochs = Epochs(run, selection, progress, deferral)
            for epoch in range(state.epoch + 1, trainer.epochs + 1):
                row = epochs.train(epoch)
                state.epoch = epoch
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

"""Loggers report runs in addition to their own files: to Weights & Biases, TensorBoard, trackio, or nowhere.

Training and evaluation describe themselves to a logger (``LoggerRun``), then report what they measured. Of several
processes only the first reports. wandb is imported only if it is switched on.
"""

import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dkl.config.identity import leaves
from dkl.console import say
from dkl.errors import UserError, needs_extra
from dkl.storage.fetch import unreachable
from dkl.storage.files import write_text

FINISHED = "finished"
"""Follows the id in a logger's file of it once the whole run has been reported."""


@dataclass(frozen=True, kw_only=True)
class LoggerRun:
    """Which run reports. Runs that differ only in the seed share a ``group``, as in a row of a table.

    ``folder`` is the run's, and ``key`` tells its evaluations apart; it is empty for the training.
    """

    name: str
    job_type: Literal["train", "evaluate"]
    group: str
    tags: list[str]
    config: dict[str, Any]
    folder: Path
    key: str = ""

    def id_file(self, logger: str) -> Path:
        """The file with the run's id at ``logger``, and whether the whole run has been reported there."""
        return self.folder / f"{logger}_id{self.key and '_'}{self.key}.txt"


class LoggerTable(NamedTuple):
    """A table with named columns."""

    columns: list[str]
    rows: list[list[Any]]


Figures = Mapping[str, float]
Tables = Mapping[str, LoggerTable]
Pictures = Mapping[str, NDArray[np.floating]]


class Logger:
    """Reports nowhere: the default, and the logger of every process but the first."""

    def reported(self, about: LoggerRun) -> bool:
        """Return whether the whole run has been reported to this logger."""
        return True

    def start(self, about: LoggerRun) -> None:
        """Open the run, or continue it under the id in its folder."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Report the metrics of one epoch."""

    def report(self, figures: Figures, tables: Tables, pictures: Pictures) -> None:
        """Report final results; ``pictures`` have shape [H, W, C] and values in [0, 1]."""

    def keep(self, files: Sequence[Path]) -> None:
        """Store ``files``, the run's weights, if the logger is set to do so."""

    def finish(self, *, failed: bool = False) -> None:
        """Close the run. Unless it ``failed``, its folder records that the whole run has been reported."""


class _Tracker(Logger):
    """A logger whose open ``run`` has an ``identity`` in a file of the run's folder, named after the ``tracker``."""

    tracker: str
    run: Any = None
    about: LoggerRun | None = None
    identity = ""

    def reported(self, about: LoggerRun) -> bool:
        return _read(about.id_file(self.tracker))[1]

    def finish(self, *, failed: bool = False) -> None:
        if self.about and not failed:
            write_text(self.about.id_file(self.tracker), f"{self.identity} {FINISHED}")

    def _media(self, module: Any, tables: Tables, pictures: Pictures) -> dict[str, Any]:
        """Return tables and pictures as the panels of a tracker's ``module``."""
        shown: dict[str, Any] = {name: module.Table(*table) for name, table in tables.items()}
        return shown | {name: module.Image(np.uint8(255 * image.clip(0, 1) + 0.5)) for name, image in pictures.items()}


class WandbLogger(_Tracker):
    """Weights & Biases. A run's folder is one run there, and so is each evaluation of it, all in one group.

    A resumed run continues under the id in its folder. ``mode`` online: only the epochs that the site lacks are
    reported. ``mode`` offline: wandb cannot append to a log, and a killed process loses the last seconds of it. Each
    resumption therefore writes another ``offline-run-*`` folder with the same id and all epochs; sync the newest. The
    agent of a wandb sweep chooses the id itself. With ``artifact`` the finished weights are uploaded too. Without a
    connection mode online becomes offline.
    """

    tracker = "wandb"

    def __init__(self, project: str = "dkl", mode: str = "online", artifact: bool = False) -> None:
        if mode not in ("online", "offline"):
            raise UserError(f"logger.mode={mode} must be online or offline; logger=none reports nowhere")
        if not isinstance(project, str) or not project:
            raise UserError(f"logger.project={project} must be the name of a project: put a number in quotes")
        self.project, self.mode, self.artifact = project, mode, artifact

    def reported(self, about: LoggerRun) -> bool:
        """Return whether the whole run has been reported, and to the current sweep if any."""
        identity, finished = _read(about.id_file(self.tracker))
        return finished and _sweeps_id() in (None, identity)

    def start(self, about: LoggerRun) -> None:
        """Open the run. Raises UserError if wandb refuses, such as without a login."""
        import wandb  # here, so that training without it needs no installation and no import time

        if self.mode == "online" and (why := unreachable(url := str(wandb.setup().settings.base_url))):
            # wandb itself would retry for minutes.
            say(f"wandb: {url} cannot be reached ({why}): logging offline; `wandb sync` uploads it later")
            self.mode = "offline"
        self.identity = _sweeps_id() or _read(about.id_file(self.tracker))[0] or secrets.token_hex(4)
        try:
            self.run = wandb.init(
                project=self.project,
                mode=self.mode,  # type: ignore[arg-type]  # checked above
                id=self.identity,
                resume="allow",
                name=about.name,
                dir=str(about.folder),
                config=about.config,
                group=about.group[-128:],  # wandb's limit; the end holds the hash, which must stay
                job_type=about.job_type,
                tags=[tag[:64] for tag in about.tags],
            )
        except wandb.errors.Error as error:
            fix = "log in with `wandb login`, or add logger.mode=offline and `wandb sync` later"
            raise UserError(f"wandb: {str(error).rstrip('.')}; {fix}") from None
        self.about = about
        write_text(about.id_file(self.tracker), self.identity)

    def log(self, row: Mapping[str, Any]) -> None:
        """Report one epoch at once, unless a resumed run has it already."""
        if row["epoch"] >= self.run.step:
            self.run.log(dict(row), step=row["epoch"], commit=True)

    def report(self, figures: Figures, tables: Tables, pictures: Pictures) -> None:
        """Report figures as the run's summary, and tables and pictures as panels."""
        import wandb

        self.run.log(dict(figures) | self._media(wandb, tables, pictures))

    def keep(self, files: Sequence[Path]) -> None:
        """Upload the files as an artifact named like the run, if ``artifact`` is set."""
        import wandb

        if self.artifact and self.about:
            artifact = wandb.Artifact(self.about.name, type="model", metadata={"group": self.about.group})
            for file in files:
                artifact.add_file(str(file))
            self.run.log_artifact(artifact)

    def finish(self, *, failed: bool = False) -> None:
        self.run.finish(exit_code=int(failed))
        super().finish(failed=failed)


class TensorBoardLogger(_Tracker):
    """TensorBoard: event files in the run's folder, with the same names of metrics as its files.

    A resumed run replaces its events by new ones from its first epoch. Raises NotInstalledError without the extra
    ``tensorboard``.
    """

    tracker = "tensorboard"

    def __init__(self) -> None:
        with needs_extra("tensorboard"):
            import tensorboard  # noqa: F401  # checked before any work; torch's writer is imported when a run starts

        self.last: dict[str, float] = {}

    def start(self, about: LoggerRun) -> None:
        """Open a file of events in ``tensorboard`` in the run's folder."""
        from torch.utils.tensorboard import SummaryWriter

        self.identity = _read(about.id_file(self.tracker))[0] or secrets.token_hex(4)
        # Epochs before an interruption are written again, so the older file is removed.
        folder = about.folder / "tensorboard" / f"{about.job_type}-{self.identity}"
        shutil.rmtree(folder, ignore_errors=True)
        self.run, self.about = SummaryWriter(str(folder)), about
        write_text(about.id_file(self.tracker), self.identity)

    def log(self, row: Mapping[str, Any]) -> None:
        self._scalars({name: value for name, value in row.items() if name != "epoch"}, row["epoch"])

    def _scalars(self, values: Mapping[str, Any], step: int) -> None:
        for name, value in values.items():
            self.run.add_scalar(name, value, step)
            self.last[name] = float(value)

    def report(self, figures: Figures, tables: Tables, pictures: Pictures) -> None:
        """Report figures as scalars, tables as text and pictures as images."""
        self._scalars(figures, 0)
        for name, table in tables.items():
            lines = [table.columns, ["---"] * len(table.columns), *table.rows]
            self.run.add_text(name, "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines))
        for name, picture in pictures.items():
            self.run.add_image(name, picture.clip(0, 1), dataformats="HWC")

    def finish(self, *, failed: bool = False) -> None:
        """Write the hyperparameters beside the last value of each metric, and close the file."""
        if self.about:
            settings = {key: value for key, value in leaves(self.about.config) if isinstance(value, int | float | str)}
            metrics = {f"hparam/{name}": value for name, value in self.last.items()}
            self.run.add_hparams(settings, metrics, run_name=".")
        self.run.close()
        super().finish(failed=failed)


class TrackioLogger(_Tracker):
    """trackio: a dashboard on this machine, without an account; ``trackio show --project dkl`` opens it.

    A resumed run replaces the run of the same name. Raises NotInstalledError without the extra ``trackio``.
    """

    tracker = "trackio"

    def __init__(self, project: str = "dkl") -> None:
        with needs_extra("trackio"):
            import trackio  # noqa: F401  # checked before any work
        self.project = project

    def start(self, about: LoggerRun) -> None:
        """Open a run with the configuration, job type and tags of ``about``."""
        import trackio

        # Epochs before an interruption are reported again, so the older run is removed.
        with suppress(ValueError):  # there is no such project yet
            for earlier in trackio.Api().runs(self.project):
                if earlier.name == about.name:
                    earlier.delete()
        config = about.config | {"job_type": about.job_type, "tags": about.tags}
        quiet = {"embed": False, "auto_log_gpu": False, "auto_log_cpu": False}
        self.run = trackio.init(self.project, name=about.name, group=about.group, config=config, **quiet)
        self.about, self.identity = about, about.name

    def log(self, row: Mapping[str, Any]) -> None:
        self.run.log(dict(row), step=row["epoch"])

    def report(self, figures: Figures, tables: Tables, pictures: Pictures) -> None:
        """Report figures as numbers, and tables and pictures as media."""
        import trackio

        self.run.log(dict(figures) | self._media(trackio, tables, pictures))

    def finish(self, *, failed: bool = False) -> None:
        self.run.finish()
        super().finish(failed=failed)


def _read(id_file: Path) -> tuple[str, bool]:
    """Return the id in ``id_file``, empty if there is none, and whether the whole run has been reported."""
    identity, _, state = (id_file.read_text(encoding="utf-8") if id_file.exists() else "").strip().partition(" ")
    return identity, state == FINISHED


def _sweeps_id() -> str | None:
    """Return the id that the agent of a wandb sweep has chosen for this run, or None without an agent."""
    return os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None


@contextmanager
def opened(logger: Logger, about: LoggerRun, past: Sequence[Mapping[str, Any]] = ()) -> Iterator[Logger]:
    """Open ``logger`` for a run, report its ``past`` epochs first, and close it whatever happens."""
    logger.start(about)
    try:
        # Epochs of an interrupted process may not have arrived; the logger leaves out those that it has.
        for row in past:
            logger.log(row)
        yield logger
    except BaseException:
        logger.finish(failed=True)
        raise
    logger.finish()

"""Where runs are reported beside their files: nowhere, or to Weights & Biases.

Training and evaluation tell a logger who they are (``About``), then what they measured. Only the first of several
processes does; wandb is imported where it is switched on, and nowhere else.
"""

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dkl.errors import UserError
from dkl.files import write_text

FINISHED = "finished"
"""Behind the id in ``About.id_file``, once the logger has been told all of the run."""


@dataclass(frozen=True, kw_only=True)
class About:
    """Who reports. ``group`` is what runs that differ in nothing but the seed share: a row of a table.

    ``id_file`` lies in the run's folder and keeps the id under which the logger knows the run, and whether it has all.
    """

    name: str
    job_type: Literal["train", "evaluate"]
    group: str
    tags: list[str]
    config: dict[str, Any]
    id_file: Path


class LoggerTable(NamedTuple):
    """Rows of values under the names of their columns."""

    columns: list[str]
    rows: list[list[Any]]


class Logger:
    """Reports nowhere: what there is without ``logger=``, and in every process but the first."""

    def start(self, about: About) -> None:
        """Open the run, or go on with the one that ``about.id_file`` names."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Report one epoch."""

    def report(
        self,
        figures: Mapping[str, float],
        tables: Mapping[str, LoggerTable],
        pictures: Mapping[str, NDArray[np.floating]],
    ) -> None:
        """Report what was found in the end; ``pictures`` are [H, W, C] in [0, 1]."""

    def keep(self, files: Sequence[Path]) -> None:
        """Keep ``files``, the run's weights, where the logger is to have them."""

    def finish(self, *, failed: bool = False) -> None:
        """Close the run."""


class WandbLogger(Logger):
    """Weights & Biases: a run folder is one run there, and so is each evaluation, in one group.

    A resumed run goes on under the id that its folder keeps. Online it is told the epochs that the site has not got.
    Offline wandb cannot append, and a killed process loses the last seconds of its log: every resumption writes another
    ``offline-run-*`` folder of the same id with all epochs from the first; the newest is whole, and the one to sync. An
    agent of a wandb sweep chooses the id itself. With ``artifact`` the finished weights are uploaded as well.
    """

    def __init__(self, project: str = "dkl", mode: str = "online", artifact: bool = False) -> None:
        if mode not in ("online", "offline"):
            raise UserError(f"logger.mode={mode} must be online or offline; logger=none reports nowhere")
        self.project, self.mode, self.artifact = project, mode, artifact
        self.run: Any = None
        self.about: About | None = None

    def start(self, about: About) -> None:
        """Open the run. Raises UserError where wandb does not let it."""
        import wandb

        kept, _ = _read(about.id_file)
        identity = _sweeps_id() or kept or secrets.token_hex(4)
        try:
            self.run = wandb.init(
                project=self.project,
                mode=self.mode,  # type: ignore[arg-type]  # checked above
                id=identity,
                resume="allow",
                name=about.name,
                dir=str(about.id_file.parent),
                config=about.config,
                group=about.group[-128:],  # wandb takes no more; the hash is at its end
                job_type=about.job_type,
                tags=[tag[:64] for tag in about.tags],
            )
        except wandb.errors.Error as error:
            mend = "log in with `wandb login`, or add logger.mode=offline and `wandb sync` later"
            raise UserError(f"wandb: {str(error).rstrip('.')}; {mend}") from None
        self.about = about
        write_text(about.id_file, identity)

    def log(self, row: Mapping[str, Any]) -> None:
        """Report one epoch, at once; one that a resumed run has already is left out."""
        if row["epoch"] >= self.run.step:
            self.run.log(dict(row), step=row["epoch"], commit=True)

    def report(
        self,
        figures: Mapping[str, float],
        tables: Mapping[str, LoggerTable],
        pictures: Mapping[str, NDArray[np.floating]],
    ) -> None:
        """Figures as the run's summary, tables and pictures as panels."""
        import wandb

        shown: dict[str, Any] = {name: wandb.Table(*table) for name, table in tables.items()}
        shown |= {name: wandb.Image(np.uint8(255 * picture.clip(0, 1) + 0.5)) for name, picture in pictures.items()}
        self.run.log(dict(figures) | shown)

    def keep(self, files: Sequence[Path]) -> None:
        """The files as an artifact named like the run, where that is asked for."""
        import wandb

        if self.artifact and self.about:
            artifact = wandb.Artifact(self.about.name, type="model", metadata={"group": self.about.group})
            for file in files:
                artifact.add_file(str(file))
            self.run.log_artifact(artifact)

    def finish(self, *, failed: bool = False) -> None:
        """Close the run, as failed where it is; else its folder says that all of it has been reported."""
        self.run.finish(exit_code=int(failed))
        if self.about and not failed:
            write_text(self.about.id_file, f"{self.run.id} {FINISHED}")


def _read(id_file: Path) -> tuple[str, bool]:
    """The id that ``id_file`` keeps, empty where there is none, and whether that run has been reported whole."""
    identity, _, state = (id_file.read_text(encoding="utf-8") if id_file.exists() else "").strip().partition(" ")
    return identity, state == FINISHED


def _sweeps_id() -> str | None:
    """The id that an agent of a wandb sweep wants this run to have; None where there is no agent."""
    return os.environ.get("WANDB_RUN_ID") if "WANDB_SWEEP_ID" in os.environ else None


def reported(id_file: Path) -> bool:
    """Whether the run that keeps its id in ``id_file`` has been reported whole, and to the sweep there is."""
    identity, finished = _read(id_file)
    return finished and _sweeps_id() in (None, identity)


@contextmanager
def opened(logger: Logger, about: About, past: Sequence[Mapping[str, Any]] = ()) -> Iterator[Logger]:
    """``logger`` while a run lasts, closed however that ends; it is told ``past`` epochs first."""
    logger.start(about)
    try:
        for row in past:
            logger.log(row)
        yield logger
    except BaseException:
        logger.finish(failed=True)
        raise
    logger.finish()

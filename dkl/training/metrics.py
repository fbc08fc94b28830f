"""Where the numbers of training go: two files in the run's folder always, Weights & Biases when asked."""

import csv
import io
import json
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from dkl.files import write_text

Row = dict[str, Any]


def write_metrics(rows: Sequence[Row], folder: Path) -> None:
    """Write one line an epoch to ``metrics.jsonl`` and ``metrics.csv``, whole and atomically."""
    write_text(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "metrics.csv", content.getvalue())


class Logger(Protocol):
    """A place beside the files that epochs are reported to."""

    def start(self, config: dict[str, Any], folder: Path, *, group: str, tags: list[str]) -> None: ...

    def log(self, row: Row) -> None: ...

    def finish(self) -> None: ...


class WandbLogger:
    """Weights & Biases: one run a run folder, continued on resume by the id kept there.

    ``mode`` is ``online`` or ``offline``. Nothing of dkl imports wandb before this logger starts. An offline run
    cannot go on in one file: wandb writes a second offline folder with the same id, and ``wandb sync`` joins them.
    """

    def __init__(self, project: str = "dkl", mode: Literal["online", "offline"] = "online") -> None:
        if mode not in ("online", "offline"):
            raise ValueError(f"mode must be online or offline, not {mode!r}")
        self.project, self.mode = project, mode
        self.run: Any = None

    def start(self, config: dict[str, Any], folder: Path, *, group: str, tags: list[str]) -> None:
        """Open the run, or go on with the one whose id lies in ``folder``."""
        import wandb

        id_file = folder / "wandb_id.txt"
        if not id_file.exists():
            write_text(id_file, secrets.token_hex(4))
        self.run = wandb.init(
            project=self.project,
            mode=self.mode,
            id=id_file.read_text().strip(),
            resume="allow",
            name=folder.name,
            dir=str(folder),
            config=config,
            group=group,
            job_type="train",
            tags=tags,
        )

    def log(self, row: Row) -> None:
        """Report one epoch."""
        self.run.log(row, step=row["epoch"])

    def finish(self) -> None:
        """Close the run."""
        self.run.finish()

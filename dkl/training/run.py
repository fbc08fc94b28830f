"""All objects of one training run. ``dkl.assembly.assemble`` builds them once; the code behind it takes no config."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dkl.config import SelectionConfig, TrainerConfig
from dkl.data import Loader
from dkl.errors import UserError
from dkl.loggers import Logger, LoggerRun
from dkl.training.schedules import Schedule
from dkl.training.state import CHECKPOINT, RunState


@dataclass(frozen=True, kw_only=True)
class Run:
    """One training run in one process: what ``fit`` trains, on which batches, and where it writes.

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

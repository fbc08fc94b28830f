"""The network to evaluate: a finished run's weights, or a network trained elsewhere (``dkl.evaluation.foreign``)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from dkl.config import (
    DataConfig,
    EvaluateConfig,
    EvaluationConfig,
    TargetConfig,
    TrainConfig,
    changed_setting,
    config_hash,
    hashed,
    label,
    load_config,
    loss_name,
    model_name,
    typed,
)
from dkl.errors import UserError
from dkl.evaluation.weights import BestEpoch, Weights, best_epoch, choose_weights
from dkl.models.sources import Source
from dkl.storage import checkpoint
from dkl.validation import first_mistake


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run of ``dkl train``.

    ``label`` is the method's name and ``loss`` the loss's. ``settings`` are the hashed part of the configuration and
    the fingerprint of the training images, ``metrics`` one row per epoch, ``teacher`` the teacher's fingerprint, and
    ``devices`` the numbers of devices that the run has used.
    """

    folder: Path
    config: TrainConfig
    label: str
    loss: str
    config_hash: str
    settings: dict[str, Any]
    metrics: Sequence[Mapping[str, Any]]
    teacher: str | None
    devices: Sequence[int] = ()

    @property
    def synthetic(self) -> str | None:
        """The synthetic training images, if any: file names with their last folder, and their share of each batch."""
        synthetic = self.config.data.synthetic
        if not synthetic.files:
            return None
        # Only the last folder is kept: records are published, and the path before it is private.
        names = ", ".join("/".join(Path(file).parts[-2:]).lstrip("/") for file in synthetic.files)
        return f"{names}, {100 * synthetic.fraction:g} % of every batch"


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The evaluated weights, the network and data they belong to, and their ``run``; None for a foreign network.

    ``method`` is the name shown in tables. ``source`` is a foreign network's, if it was named by its place. ``key`` is
    the setting that is named if the network cannot be built.
    """

    method: str
    data: DataConfig
    model: TargetConfig
    weights: Weights
    run: TrainedRun | None = None
    source: Source | None = None
    key: str = "model"

    @property
    def seed(self) -> int | None:
        """The training seed; None for a foreign network."""
        return self.run.config.seed if self.run else None

    @property
    def budget(self) -> str:
        """The run's budget; ``own`` for a foreign network."""
        return self.run.config.budget.name if self.run else "own"

    @property
    def title(self) -> str:
        """Method and seed, usable in a file name."""
        seed = "foreign" if self.seed is None else f"s{self.seed}"
        # Spaces and slashes would split the file name or the command that gives it.
        return f"{self.method.replace('/', '_').replace(' ', '_')}-{seed}"

    @property
    def architecture(self) -> str:
        """The model's name in tables: ``model.title``, or its name without one."""
        return str(self.model.get("title") or model_name(self.model))

    @property
    def settings(self) -> dict[str, Any]:
        """The model's configuration without its display name."""
        return {key: value for key, value in self.model.items() if key != "title"}

    @property
    def best(self) -> BestEpoch | None:
        """The epoch with the best test accuracy of these weights' kind (last or average); None if not known."""
        return best_epoch(self.run.metrics, self.weights.averaged) if self.run else None


def run_subject(asked: EvaluateConfig) -> Subject:
    """Read the finished run that ``asked.run`` names. Raises UserError if there is none, or it is not finished."""
    folder = Path(str(asked.run))
    trained = load_config(folder)
    trained.paths = OmegaConf.structured(asked.paths)  # the data may lie elsewhere now
    config = typed(trained, TrainConfig)
    path = folder / "checkpoint.pt"
    content = checkpoint.read(path)
    if not isinstance(content, Mapping) or not {"epoch", "config", "data_sha256", "model"} <= content.keys():
        raise UserError(f"{path} is not a checkpoint of dkl train: evaluate it by checkpoint={path} model=… data=…")
    if changed := _changed_setting(content["config"], trained):
        raise UserError(
            f"{path} was trained with {changed} as in {folder / 'config.yaml'}: the files are of different runs, or "
            "one was edited; restore it, or train again"
        )
    _check_metadata(content, path, config.trainer.epochs)
    if content["epoch"] < config.trainer.epochs:
        done = f"{content['epoch']} of {config.trainer.epochs} epochs"
        raise UserError(f"{folder} has trained only {done}: finish training by the same dkl train, then evaluate")
    run = TrainedRun(
        folder=folder,
        config=config,
        label=label(trained),
        loss=loss_name(trained),
        config_hash=config_hash(trained),
        settings={**hashed(trained), "data_sha256": content["data_sha256"]},
        metrics=content.get("rows", []),
        teacher=content.get("task", {}).get("teacher"),
        devices=content.get("devices", []),
    )
    return Subject(
        method=asked.label or run.label,
        data=config.data,
        model=config.model,
        weights=choose_weights(folder, content, asked.weights or config.evaluation.weights),
        run=run,
    )


class _Metadata(TypedDict, total=False):
    """What an evaluation reads of a checkpoint besides its weights."""

    epoch: int
    rows: list[dict[str, float]]
    devices: list[int]
    task: dict[str, Any]
    data_sha256: str


def _check_metadata(content: Mapping[str, Any], path: Path, epochs: int) -> None:
    """Raise UserError unless the metadata in the checkpoint at ``path`` are those of a run of ``epochs`` epochs."""
    try:
        found = TypeAdapter(_Metadata).validate_python(content, strict=True)
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {first_mistake(error, {})}; restore it, or train again") from None
    epoch, rows = found["epoch"], found.get("rows", [])
    if epoch > epochs or (rows and [row.get("epoch") for row in rows] != list(range(1, epoch + 1))):
        raise UserError(
            f"{path} is of epoch {epoch} and has the metrics of {len(rows)} epochs, but its run has {epochs} epochs: "
            "restore it, or train again"
        )


def _changed_setting(trained: Mapping[str, Any], cfg: DictConfig) -> str | None:
    """The first setting in which ``trained``, from a checkpoint, differs from the run's file."""
    now = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(now, dict)
    try:
        return changed_setting(trained, {str(key): value for key, value in now.items()})
    except (AttributeError, LookupError, TypeError):  # a part is missing, or no mapping
        return "another configuration, not the one"


def evaluation_defaults(subject: Subject) -> EvaluationConfig:
    """How ``subject`` is evaluated if the command does not say: as its run, source or data tell."""
    if subject.run:
        return subject.run.config.evaluation
    source, data = subject.source, subject.data
    defaults = EvaluationConfig(eps=(source and source.eps) or data.eps, norm=(source and source.norm) or "linf")
    if data.ignore_index is not None:
        defaults.attacks = "none"
    return defaults

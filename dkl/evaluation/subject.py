"""What is evaluated: the weights of a finished run, or a network trained elsewhere, and how both are loaded.

A run has last weights, their average, or the best that selection kept. A foreign network is named as ``dkl evaluate``
names it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from pydantic import TypeAdapter, ValidationError
from torch import nn
from typing_extensions import TypedDict

from dkl.assembly import build_model
from dkl.attacks.autoattack.classifier import blamed, first_output
from dkl.config import (
    DataConfig,
    EvaluateConfig,
    EvaluationConfig,
    TargetConfig,
    TrainConfig,
    changed_setting,
    hashed,
    load_config,
    model_name,
    typed,
)
from dkl.config.identity import config_hash, label, loss_name
from dkl.config.schema import WEIGHTS
from dkl.errors import UserError, shortened
from dkl.models import load_checkpoint
from dkl.models.sources import Request, Source, graph_source, is_graph, resolve
from dkl.published import PREPROCESSINGS
from dkl.storage import checkpoint
from dkl.storage.files import digest
from dkl.validation import first_mistake


@dataclass(frozen=True)
class Weights:
    """The weights under ``key`` of the checkpoint at ``path``; a None key is found on loading.

    ``text`` describes them in the record, and ``averaged`` is true for a weight average.
    """

    path: Path
    key: str | None = None
    text: str = "as in the file"
    averaged: bool = False


class BestEpoch(NamedTuple):
    """The highest test accuracy (mean IoU with masks) after any epoch, and the first epoch that reached it."""

    accuracy: float
    epoch: int


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

    @property
    def step_seconds(self) -> float | None:
        """The duration of a training step in the median epoch; None for runs that did not record their speed."""
        speeds = [row["images_per_second"] for row in self.metrics if "images_per_second" in row]
        return median(self.config.trainer.batch_size / speed for speed in speeds) if speeds else None

    @property
    def training_seconds(self) -> float | None:
        """The duration of all epochs; None for runs that did not record it."""
        seconds = [row.get("epoch_seconds") for row in self.metrics]
        return sum(filter(None, seconds)) if seconds and None not in seconds else None


@dataclass(frozen=True, kw_only=True)
class Subject:
    """The evaluated weights, the network and data they belong to, and their ``run``; None for a foreign network.

    ``method`` and ``name`` are shown in tables; without a name, that of its model. ``source`` is a foreign network's,
    if it was named by its place. ``key`` is the setting that is named if the network cannot be built.
    """

    method: str
    data: DataConfig
    model: TargetConfig
    weights: Weights
    run: TrainedRun | None = None
    source: Source | None = None
    key: str = "model"
    name: str | None = None

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
        """The model's name in tables: as given, or ``model.title``, or its name without one."""
        return self.name or str(self.model.get("title") or model_name(self.model))

    @property
    def settings(self) -> dict[str, Any]:
        """The model's configuration without its display name."""
        return {key: value for key, value in self.model.items() if key != "title"}

    @property
    def config_hash(self) -> str:
        """The hash of the run's configuration; for a foreign checkpoint, of its model's and of how it sees images."""
        # The same weights with another normalization, activation or crop are another network, with another record.
        if self.run:
            return self.run.config_hash
        seen = {key: getattr(self.data, key) for key in ("center_crop", "interpolation")}
        return digest(self.settings | {key: value for key, value in seen.items() if value != getattr(DataConfig, key)})

    @property
    def best(self) -> BestEpoch | None:
        """The epoch with the best test accuracy of these weights' kind (last or average); None if not known."""
        return best_epoch(self.run.metrics, self.weights.averaged) if self.run else None

    @property
    def tests(self) -> dict[str, float] | None:
        """What the task measured of these weights beside accuracy and mean IoU; not known of the best epoch's."""
        if not self.run or not self.run.metrics or self.weights.text.startswith("best"):
            return None
        prefix, last = "average_test_" if self.weights.averaged else "test_", self.run.metrics[-1]
        found = {key.removeprefix(prefix): value for key, value in last.items() if key.startswith(prefix)}
        own = {key: value for key, value in found.items() if key not in ("accuracy", "miou") and math.isfinite(value)}
        return own or None

    @property
    def defaults(self) -> EvaluationConfig:
        """How it is evaluated if the command does not say: as its run, source or data tell."""
        if self.run:
            return self.run.config.evaluation
        source = self.source
        defaults = EvaluationConfig(
            eps=(source and source.eps) or self.data.eps, norm=(source and source.norm) or "linf"
        )
        if self.data.ignore_index is not None:
            defaults.attacks = "none"
        return defaults


def best_epoch(rows: Sequence[Mapping[str, Any]], averaged: bool) -> BestEpoch | None:
    """Find the best epoch in a run's metrics, of the last weights or of their average; None if an epoch has no test."""
    metric = "test_miou" if any("test_miou" in row for row in rows) else "test_accuracy"
    key = f"average_{metric}" if averaged else metric
    # An epoch without a test accuracy may have been the best.
    if any("test_accuracy" not in row for row in rows):
        return None
    tested = [BestEpoch(row[key], row["epoch"]) for row in rows if key in row]
    return max(tested, key=lambda best: best.accuracy, default=None)  # the first of equals


def run_subject(asked: EvaluateConfig) -> Subject:
    """Read the finished run that ``asked.run`` names. Raises UserError if there is none, or it is not finished."""
    folder = Path(str(asked.run))
    trained = load_config(folder)
    trained.paths = OmegaConf.structured(asked.paths)  # the data may lie elsewhere now
    config = typed(trained, TrainConfig)
    content = _checkpoint_of(folder, trained, config.trainer.epochs)
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
        weights=_choose_weights(folder, content, asked.weights or config.evaluation.weights),
        run=run,
    )


class _Metadata(TypedDict, total=False):
    """What an evaluation reads of a checkpoint besides its weights."""

    epoch: int
    rows: list[dict[str, float]]
    devices: list[int]
    task: dict[str, Any]
    data_sha256: str


def _checkpoint_of(folder: Path, trained: DictConfig, epochs: int) -> Mapping[str, Any]:
    """Read the last checkpoint of the run in ``folder``, which has the configuration ``trained`` and ``epochs`` epochs.

    Raises UserError if it is of another run, damaged, or not of the last epoch.
    """
    path = folder / "checkpoint.pt"
    content = checkpoint.read(path)
    if not isinstance(content, Mapping) or not {"epoch", "config", "data_sha256", "model"} <= content.keys():
        raise UserError(f"{path} is not a checkpoint of dkl train: evaluate it by checkpoint={path} model=… data=…")
    now = OmegaConf.to_container(trained, resolve=True, enum_to_str=True)
    assert isinstance(now, dict)
    try:
        changed = changed_setting(content["config"], {str(key): value for key, value in now.items()})
    except (AttributeError, LookupError, TypeError):  # a part is missing, or no mapping
        changed = "another configuration, not the one"
    if changed:
        raise UserError(
            f"{path} was trained with {changed} as in {folder / 'config.yaml'}: the files are of different runs, or "
            "one was edited; restore it, or train again"
        )
    try:
        metadata = TypeAdapter(_Metadata).validate_python(content, strict=True)
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {first_mistake(error, {})}; restore it, or train again") from None
    epoch, rows = metadata["epoch"], metadata.get("rows", [])
    if epoch > epochs or (rows and [row.get("epoch") for row in rows] != list(range(1, epoch + 1))):
        raise UserError(
            f"{path} is of epoch {epoch} and has the metrics of {len(rows)} epochs, but its run has {epochs} epochs: "
            "restore it, or train again"
        )
    if epoch < epochs:
        raise UserError(
            f"{folder} has trained only {epoch} of {epochs} epochs: finish training by the same dkl train, "
            "then evaluate"
        )
    return content


def _choose_weights(folder: Path, content: Mapping[str, Any], asked: str | None) -> Weights:
    """Return the weights ``asked`` for of the run in ``folder``, whose checkpoint holds ``content``.

    None means the average if the run keeps one, else the last weights. Raises UserError if the run has no such weights.
    """
    last, best, epoch = folder / "checkpoint.pt", folder / "best.pt", content["epoch"]
    exists = {"last": True, "average": bool(content.get("average")), "best": best.is_file()}
    if asked is not None and not exists.get(asked):
        available = ", ".join(name for name in WEIGHTS if exists[name])
        raise UserError(f"weights={asked} is not one of the weights in {folder}; choose one of: {available}")
    if asked == "average" or (asked is None and exists["average"]):
        return Weights(last, "average", f"average at epoch {epoch}", averaged=True)
    if asked != "best":
        return Weights(last, "model", f"last epoch {epoch}")
    kept = checkpoint.read(best)
    if not isinstance(kept, Mapping) or not {"weights", "attack", "epoch", "model", "config"} <= kept.keys():
        raise UserError(f"{best} is not from dkl train: evaluate other weights by weights=last, or train the run again")
    if changed := changed_setting(kept["config"], content["config"]):
        raise UserError(f"{best} was trained with {changed}, so it is of another run: evaluate weights=last")
    kind = f"{kept['weights']}, {kept['attack']}"
    return Weights(best, "model", f"best epoch {kept['epoch']} ({kind})", kept["weights"] == "average")


def foreign_subject(asked: EvaluateConfig) -> Subject:
    """Return the subject of a network trained elsewhere, before anything is built.

    Raises UserError if its network or data are not named, or if it has settings that do not apply to it.
    """
    data, path = asked.data, Path(asked.checkpoint) if asked.checkpoint else None
    _check_foreign(asked, held=path is not None and is_graph(path))
    assert data
    if asked.model:
        assert path  # whether it exists is checked after the other settings
        method, weights = asked.label or path.stem, Weights(path)
        return Subject(method=method, name=asked.architecture, data=data, model=asked.model, weights=weights)
    if path is not None:
        check_checkpoint(path)
    request = Request(
        num_classes=data.num_classes,
        shape=data.shape,
        dataset=data.name,
        norm=asked.norm,
        checkpoint=path,
        arguments=asked.arguments,
        mean=asked.mean,
        std=asked.std,
        trust=asked.trust,
    )
    source = resolve(asked.network, request) if asked.network else graph_source(Path(str(path)), request)
    weights = Weights(source.weights or Path(str(asked.network).replace(":", "/")))
    method = asked.label or source.label or weights.path.stem
    key = "arguments" if asked.arguments else "model"
    if source.preprocessing:
        data = _as_published(data, source.preprocessing, method)
    subject = Subject(method=method, name=asked.architecture, data=data, model=source.model, weights=weights)
    return replace(subject, source=source, key=key)


def _as_published(data: DataConfig, preprocessing: str, method: str) -> DataConfig:
    """``data`` resized and cropped as the publisher of ``method`` does. Raises UserError if ``data`` asks for another.

    A value that data=imagenet has by default asks for nothing.
    """
    values, usual = PREPROCESSINGS[preprocessing], PREPROCESSINGS["Res256Crop224"]
    for key, value in values.items():
        if (asked := getattr(data, key)) not in (value, usual[key]):
            raise UserError(f"data.{key}={asked}, but {method} sees images by {preprocessing}: leave out data.{key}")
    source = data.source
    if source is not None and "size" in source:
        source = {**source, "size": values["shape"][1]}
    return replace(data, source=source, **values)


def _check_foreign(asked: EvaluateConfig, *, held: bool) -> None:
    """Raise UserError if a foreign network lacks its data or model, or has settings that do not apply to it.

    ``held``: its file holds the network too.
    """
    named = bool(asked.model or asked.network)
    if not asked.data or not (named or held):
        raise undescribed(asked.checkpoint, asked.network)
    if held and named:
        raise UserError(f"checkpoint={asked.checkpoint} holds its network: leave out model=…")
    if asked.model and asked.network:
        raise UserError("model and network both name a network: leave one out")
    if asked.model and (asked.arguments or asked.mean or asked.std):
        raise UserError("arguments, mean and std are for model=package.module:function: use model.KEY=VALUE")
    if asked.weights:
        raise UserError(
            f"weights={asked.weights} chooses among the weights of a run: leave it out with checkpoint=FILE"
        )


def undescribed(checkpoint: str | None, network: str | None) -> UserError:
    """The error about a foreign network without its data or model. Raises UserError if its file does not exist."""
    if checkpoint:
        check_checkpoint(Path(checkpoint))
    named = f"model={network}" if network else f"checkpoint={checkpoint}"
    return UserError(f"{named} does not say its network and data: add model=… data=…")


def check_checkpoint(path: Path) -> None:
    """Raise UserError if there is no file ``path``."""
    if not path.is_file():
        raise UserError(f"there is no checkpoint at {shortened(path)}; check the path, or train the run first")


def load_network(subject: Subject) -> tuple[nn.Module, str]:
    """Build the network of ``subject`` in eval mode with its weights; also returns one line about the file.

    Raises UserError if the weights do not fit, or if a foreign network does not give logits for the data's images.
    """
    source, weights = subject.source, subject.weights
    if source is not None and source.holds_network:
        model = build_model({**subject.model, "path": str(weights.path), "trust": True})
        layout = f"{weights.path}: a network with its weights"
    elif source is not None and source.weights is None:
        model, layout = build_model(subject.model), f"{weights.path}: published weights"
    else:
        model = build_model(subject.model, subject.key)
        layout = load_checkpoint(model, weights.path, weights.key)
    model = model.float().eval()  # checkpoints may hold half or double precision; attacks run in float32
    if source is not None:
        _check_logits(model, subject)
        layout += f"; images by {source.preprocessing}" if source.preprocessing else ""
    return model, layout


def _check_logits(model: nn.Module, subject: Subject) -> None:
    """Raise UserError unless ``model`` gives logits [2, C] for two images of the subject's data."""
    shape, classes = list(subject.data.shape), subject.data.num_classes
    with blamed(f"{subject.method} does not take images {shape} of {subject.data.name}", "; choose data of its size"):
        logits = first_output(model, torch.zeros(2, *shape), subject.method)
    got = list(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if got != [2, classes] and subject.data.ignore_index is None:
        raise UserError(
            f"{subject.method} gives {got} for two images, not logits [2, {classes}]: {subject.data.name} has "
            f"{classes} classes; choose the data that it was trained on"
        )

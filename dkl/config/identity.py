"""The identity of a run and of a table's row, and composed runs that know theirs.

``config_hash`` names the folder of one run: its exact configuration, seed included. ``row_identity`` is what all runs
of one table row share, for any seed and machine. Leaderboards, paper tables, ``dkl reproduce`` and loggers all
use this one function. Whoever plans, reports or estimates runs reads a ``ComposedRun``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl.config.compose import compose_config, plain, typed, unknown_keys
from dkl.config.overrides import compose_explained, quoted
from dkl.config.schema import DataConfig, TrainConfig
from dkl.storage.files import digest

COMPUTING = (
    *("devices", "batch_norm_share", "accumulate", "sync_batchnorm"),
    *("precision", "compile", "channels_last", "matmul", "deterministic"),
)
"""Values of ``trainer`` that say how a run computes, not what it trains. They change weights by rounding and by the
order of random numbers; the first four also change which images BatchNorm sees together. A row may hold seeds trained
on different machines."""

NAMED_DATASETS = ("cifar10", "cifar100", "digits", "imagenet", "imagenet_lt")
"""Values of ``data.name`` whose images are the same wherever ``data.source`` reads them. Any other name, such as that
of your own dataset, may belong to several sources, so there ``data.source`` is part of a row."""

TEACHERS = ("teacher", "natural_teacher")
"""Keys of ``task`` that hold a network with its weights."""


def model_name(model: Mapping[str, Any]) -> str:
    """The network's name in folders and records: ``model.name``, or the last part of ``model._target_``."""
    return str(model.get("name") or str(model["_target_"]).rpartition(".")[2])


def loss_name(cfg: DictConfig) -> str:
    """Class name of the loss, such as IKL, or of the task's own loss, such as FitNet; ``CE`` if there is neither.

    That of several losses is IKL+KL.
    """
    loss = cfg.loss or OmegaConf.select(cfg, "task.loss")
    if not loss:
        return "CE"
    several = loss.get("terms") if loss._target_ == "dkl.losses.WeightedSum" else None
    keys = [f"terms.{name}.loss._target_" for name in several or ()] or ["_target_"]
    return "+".join(str(OmegaConf.select(loss, key)).rpartition(".")[2] for key in keys)


def label(cfg: DictConfig) -> str:
    """The method's name in tables: ``cfg.label``, or the loss.

    It has ``-AT`` if it compares adversarial images, and ``+ LS`` if it standardizes logits.
    """
    name = f"{loss_name(cfg)}-AT" if cfg.loss and cfg.attack else loss_name(cfg)
    return cfg.label or (f"{name} + LS" if cfg.loss and cfg.loss.get("standardize") else name)


def batch_norm_parts(trainer: Any) -> int:
    """In how many equal parts BatchNorm sees a batch: ``trainer`` is the part of a configuration, typed or not."""
    return int(trainer.batch_norm_share or trainer.devices)


def views_together(second_view: str | None, task: Mapping[str, Any]) -> bool:
    """Whether a forward pass of ``task`` has both views of each image."""
    return second_view is not None and not task.get("per_view_forward")


def hashed(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration without what cannot change the trained weights: paths, logger, device and names."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.paths.data = cfg.paths.results = ""
    return _of_training(plain(cfg, resolve=True, enum_to_str=True))


def _of_training(content: dict[Any, Any]) -> dict[str, Any]:
    """Remove from a resolved configuration what cannot change the trained weights."""
    trainer, model, data = content["trainer"], content["model"], content["data"]
    for key in ("paths", "logger", "evaluation", "label"):
        content.pop(key, None)
    for key in ("device", "threads", "validate_every", "workers"):
        trainer.pop(key, None)
    # A run continues on any number of devices, as long as BatchNorm sees the same parts of a batch.
    parts = trainer.pop("batch_norm_share", None)
    trainer["devices"] = parts or trainer.get("devices", 1)
    # On one device each part has one view; so many devices would mix the views.
    if (parts or 1) > 1 and views_together(data.get("augment", {}).get("second_view"), content["task"]):
        trainer |= {"devices": 1, "batch_norm_share": parts}
    if trainer.get("initial_weights"):  # a moved file is the same one
        trainer["initial_weights"] = Path(trainer["initial_weights"]).name
    optimizer = content["optimizer"]
    if optimizer.get("_target_"):
        optimizer |= {"name": "sgd", "momentum": 0.9, "nesterov": False}  # the defaults: unused
    elif optimizer.get("name", "sgd") != "sgd":
        optimizer["nesterov"] = False
    model.pop("title", None)  # a display name
    for key in ("download", "where"):  # whether, and by what hint in errors, the user gets the images
        data["source"].pop(key, None)
    if weights := content["task"].get("encoder_weights"):
        content["task"]["encoder_weights"] = Path(weights).name
    for teacher in (content["task"].get(key) or {} for key in TEACHERS):
        for key in ("checkpoint", "run"):  # a moved teacher is the same one: a run's folder is named by its own hash
            if teacher.get(key):
                teacher[key] = Path(teacher[key]).name
    return {str(key): _integral(value) for key, value in content.items()}


def changed_setting(trained: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """Describe the first setting of training in which two resolved configurations differ; None if there is none.

    ``trained`` is from a checkpoint, ``now`` what it is to continue. Moved folders of data are no difference, and
    neither are keys that training has ignored.
    """

    def without_folder(value: Any, folder: str) -> Any:
        """Copy ``value`` with paths relative to the ``folder`` of data."""
        if isinstance(value, Mapping):
            return {key: without_folder(item, folder) for key, item in value.items()}
        if isinstance(value, list):
            return [without_folder(item, folder) for item in value]
        if not folder or not isinstance(value, str):
            return value
        return "" if value == folder else value.removeprefix(f"{folder}/")

    folders = [str((one.get("paths") or {}).get("data", "")) for one in (trained, now)]
    contents = [_of_training(without_folder(*pair)) for pair in zip((trained, now), folders, strict=True)]
    before, after = (dict(leaves(_changed(content, _defaults()))) for content in contents)
    ignored = tuple(f"{key}." for content in contents for key, _ in unknown_keys(content, TrainConfig))
    keys = (key for key in before | after if not f"{key}.".startswith(ignored))
    different = [key for key in keys if before.get(key) != after.get(key)]
    # A task repeats the seed, its loss and its attack.
    for key in sorted(different, key=lambda key: key.startswith("task.")):
        old, new = (dict(leaves(content)).get(key, "absent") for content in contents)
        return f"{key}={old}, not {new}"
    return None


def leaves(content: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by dotted key."""
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _integral(value: Any) -> Any:
    """``value`` with whole floats as integers, so that 20 and 20.0 name the same run."""
    if isinstance(value, dict):
        return {key: _integral(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_integral(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def config_hash(cfg: DictConfig) -> str:
    """Eight hex digits that name the run.

    Only values that differ from the typed defaults count, so adding a key to the schema renames no existing run.
    """
    return digest(_changed(hashed(cfg), _defaults()))


def row_identity(training: Mapping[str, Any]) -> str:
    """Eight hex digits that all runs of one table row share."""
    return digest(row_settings(training))


def row_settings(training: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that all runs of one table row share.

    ``training`` is the result of ``hashed``, or the copy of it in a record. These do not count:

    - the seed, and ``COMPUTING``: a row averages over seeds, which may be trained on different machines;
    - the fingerprint of the images, and their source if ``data.name`` is one of ``NAMED_DATASETS`` (folder or shards);
    - ``data.mean`` and ``data.std``: networks that normalize have them in their own configuration;
    - where a teacher's weights are stored: its name and the row's other settings identify it;
    - values equal to the typed defaults, so that records made before a key was added still match.
    """
    content = _without(training, "seed", "data_sha256")
    content["trainer"] = _without(content.get("trainer", {}), *COMPUTING)
    data = content.get("data", {})
    content["data"] = _without(data, "mean", "std", *(["source"] if data.get("name") in NAMED_DATASETS else []))
    if not content.get("selection", {}).get("every"):
        content.pop("selection", None)  # unused, and its eps is resolved here but not in the defaults
    task = _without(content.get("task", {}), "seed")
    for key in TEACHERS:
        if isinstance(task.get(key), dict):
            task[key] = _without(task[key], "checkpoint", "run")
    return _changed(content | {"task": task}, _defaults())


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


@cache
def _defaults() -> dict[str, Any]:
    """The typed root before any choice is made."""
    content = plain(OmegaConf.structured(TrainConfig(data=DataConfig())), enum_to_str=True)
    return {str(key): _integral(value) for key, value in content.items()}


def _changed(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``content`` that differ from ``defaults``."""
    found = {}
    for key, value in content.items():
        default = defaults.get(key)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            value = _changed(value, default)
        if value != default and value != {}:
            found[key] = value
    return found


def run_folder(cfg: DictConfig) -> Path:
    """``<results>/runs/<data>-<model>-<loss>-s<seed>-<hash8>``."""
    name = f"{cfg.data.name}-{model_name(cfg.model)}-{loss_name(cfg).lower()}-s{cfg.seed}-{config_hash(cfg)}"
    return Path(cfg.paths.results) / "runs" / name


@dataclass(frozen=True, eq=False)
class ComposedRun:
    """The composed configuration ``cfg`` of one run of ``dkl train``."""

    cfg: DictConfig

    @cached_property
    def settings(self) -> TrainConfig:
        """The typed configuration."""
        return typed(self.cfg, TrainConfig)

    @cached_property
    def folder(self) -> Path:
        """The folder of the run."""
        return run_folder(self.cfg)

    @cached_property
    def config_hash(self) -> str:
        """The hash that names the run."""
        return config_hash(self.cfg)

    @cached_property
    def row(self) -> str:
        """The identity of the run's row in tables."""
        return row_identity(hashed(self.cfg))

    def evaluation(self, overrides: Sequence[str]) -> DictConfig:
        """The configuration of ``dkl evaluate`` for this run, on the devices of its training, with ``overrides``."""
        paths = [f"paths.{key}={quoted(value)}" for key, value in self.cfg.paths.items()]
        trainer = self.settings.trainer
        device = [f"device={trainer.device}", f"devices={trainer.devices}"]
        return compose_config("evaluate", [f"run={quoted(str(self.folder))}", *paths, *device, *overrides])

    @property
    def downloads_teacher(self) -> bool:
        """Whether the teacher's weights are the published ones, which are downloaded when training starts."""
        teacher = OmegaConf.select(self.cfg, "task.teacher") or {}
        published = bool(teacher.get("pretrained")) or ":" in str(teacher.get("name"))
        return published and teacher.get("_target_") == "dkl.models.create_teacher"

    def with_untrained_teacher(self) -> "ComposedRun":
        """This run with a freshly initialized teacher, for checks before the teacher's weights exist."""
        # Only the teacher is resolved: values that are still missing elsewhere are reported by the check.
        cfg, teacher = self.cfg.copy(), plain(self.cfg.task.teacher, resolve=True)
        network = {key: teacher.get(key) for key in ("name", "num_classes", "in_chans", "mean", "std", "size")}
        network["_target_"] = "dkl.models.teacher.untrained_teacher"
        OmegaConf.update(cfg, "task.teacher", network, merge=False)
        return ComposedRun(cfg)


@lru_cache(maxsize=1024)
def compose_run(overrides: tuple[str, ...]) -> ComposedRun:
    """Compose the run of ``overrides``, once: that takes a tenth of a second or more, and a table has a hundred jobs.

    Seeds of one row differ in the seed only, so they are copies. Raises UserError if an override does not fit.
    """
    seeds = [text for text in overrides if text.startswith("seed=")]
    if not seeds:
        return ComposedRun(compose_explained("train", overrides))
    cfg = compose_run(tuple(text for text in overrides if text not in seeds)).cfg.copy()
    cfg.seed = int(seeds[-1].partition("=")[2])
    return ComposedRun(cfg)

"""What names a run: its method, its hash and its folder."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dkl.config.schema import DataConfig, TrainConfig
from dkl.files import digest


def loss_name(cfg: DictConfig) -> str:
    """Class name of the loss, such as IKL, or of the task's own, such as FitNet; ``CE`` where there is none."""
    loss = cfg.loss or OmegaConf.select(cfg, "task.loss")
    return str(loss._target_).rpartition(".")[2] if loss else "CE"


def label(cfg: DictConfig) -> str:
    """The method's name in tables: ``cfg.label``, or the loss and how it is used."""
    adversarial = cfg.attack and "TradesTraining" in cfg.task._target_
    return cfg.label or (f"{loss_name(cfg)}-AT" if adversarial else loss_name(cfg))


def hashed(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration less what does not change the trained weights: paths, logger, device, names."""
    cfg = cfg.copy()
    OmegaConf.set_struct(cfg, False)
    cfg.paths.data = cfg.paths.results = ""
    content = OmegaConf.to_container(cfg, resolve=True, enum_to_str=True)
    assert isinstance(content, dict)
    for key in ("paths", "logger", "evaluation", "label"):
        content.pop(key)
    for key in ("device", "threads", "validate_every", "workers"):
        content["trainer"].pop(key)
    content["data"]["source"].pop("download", None)
    teacher = content["task"].get("teacher") or {}
    for key in ("checkpoint", "run"):  # where a teacher lies; a run's folder is named by its own hash
        if teacher.get(key):
            teacher[key] = Path(teacher[key]).name
    return {str(key): _plain(value) for key, value in content.items()}


def _plain(value: Any) -> Any:
    """``value`` with whole floats as integers, so that 20 and 20.0 name the same run."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def config_hash(cfg: DictConfig) -> str:
    """Eight hex digits that name the run; typed defaults do not count, so that keys to come rename no run of before."""
    return digest(_changed(hashed(cfg), _defaults()))


def row_hash(cfg: DictConfig) -> str:
    """As ``config_hash``, the seed left out: runs that share it are seeds of one row of a table."""
    content = hashed(cfg)
    task = _without(content["task"], "seed")  # follows the run's
    return digest(_changed(_without(content, "seed") | {"task": task}, _defaults()))


COMPUTING = ("devices", "accumulate", "sync_batchnorm", "precision", "compile", "channels_last")
"""Values of ``trainer`` that say where and in which arithmetic a run computes, not what."""


UNNAMED = ("npz", "imagefiles", "imagefolder")
"""Names of ``data`` that say nothing of the images: there the files are what tells sets apart."""


def identity_of(training: Mapping[str, Any]) -> str:
    """What a table's row and a record must share: the hash of ``hashed`` content, or of the copy that a record keeps.

    Left out are the seed, ``COMPUTING``, the training images' fingerprint, place and form where ``data`` names them,
    where a teacher lay, and normalisation, which the networks have; and typed values that are the defaults, so that a
    record is known by rows that came to have more keys.
    """
    content = _without(training, "seed", "data_sha256")
    content["trainer"] = _without(content["trainer"], *COMPUTING)
    named = content["data"]["name"] not in UNNAMED
    content["data"] = _without(content["data"], "mean", "std", *(["source"] if named else []))
    if not content.get("selection", {}).get("every"):
        content.pop("selection", None)  # its radius is resolved, the default is not
    task = _without(content["task"], "seed")
    if isinstance(task.get("teacher"), dict):
        task["teacher"] = _without(task["teacher"], "checkpoint", "run")
    return digest(_changed(content | {"task": task}, _defaults()))


def _without(values: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in values.items() if key not in keys}


@cache
def _defaults() -> dict[str, Any]:
    """What the typed root holds before any choice is made."""
    root = OmegaConf.structured(TrainConfig(data=DataConfig()))
    content = OmegaConf.to_container(root, enum_to_str=True)
    assert isinstance(content, dict)
    return {str(key): _plain(value) for key, value in content.items()}


def _changed(content: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The values of ``content`` that ``defaults`` does not have."""
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
    name = f"{cfg.data.name}-{cfg.model.name}-{loss_name(cfg).lower()}-s{cfg.seed}-{config_hash(cfg)}"
    return Path(cfg.paths.results) / "runs" / name

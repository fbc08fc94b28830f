"""Network, images and protocol of a record, built again from what the user names.

Nothing in the record is run: it may name networks of this project and of timm, and no other code.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from dkl.assembly import load_data
from dkl.config import EvaluateConfig, typed
from dkl.config.choices import choices
from dkl.config.overrides import compose_explained, expand_network
from dkl.data import ImageSet
from dkl.errors import UserError
from dkl.evaluation.foreign import foreign_subject
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.subject import Subject, run_subject
from dkl.evaluation.weights import Weights
from dkl.models.sources import CREATE, foreign_network, is_graph
from dkl.records import Record
from dkl.storage import checkpoint
from dkl.storage.files import digest
from dkl.threat import EvaluatedNorm

KEYS = (
    *("checkpoint", "run", "model", "network", "arguments", "mean", "std", "trust"),
    *("data", "device", "threads", "paths"),
)
"""Keys of ``dkl evaluate`` that a verification takes; the others are those of the record."""


def config_of(record: Record, overrides: Sequence[str]) -> EvaluateConfig:
    """Compose what names the network and its data; the dataset is the record's if none is given."""
    given = expand_network(overrides)
    keys = [text.lstrip("+~").partition("=")[0].partition(".")[0] for text in given]
    if other := next((key for key in keys if key not in KEYS), None):
        raise UserError(f"dkl verify takes no {other}=: it is the record's; it takes {', '.join(KEYS)}, n and seed")
    if "run" not in keys and "data" not in keys:
        if record.dataset not in choices("data"):
            raise UserError(f"{record.id} is of {record.dataset!r}, no choice of configs/data: add data=…")
        given = [*given, f"data={record.dataset}"]
    return typed(compose_explained("evaluate", given), EvaluateConfig)


def subject_of(record: Record, config: EvaluateConfig) -> Subject:
    """What is evaluated again: the run, or the file with the network that is named, or that of the record."""
    if config.run:
        return run_subject(dataclasses.replace(config, weights=_kind(record)))
    if config.checkpoint is None and config.network is None:
        raise UserError("name the weights: checkpoint=FILE, or run=FOLDER for a run")
    held = config.checkpoint is not None and is_graph(Path(config.checkpoint))
    if not (config.model or config.network or held):
        config = dataclasses.replace(config, model=_recorded_network(record))
    subject = foreign_subject(config)
    if record.seed is not None:
        key, path = "average" if _kind(record) == "average" else "model", subject.weights.path
        # An exported file holds the weights alone.
        return dataclasses.replace(subject, weights=Weights(path, key)) if _has(path, key) else subject
    if digest(subject.settings) != record.config_hash:
        network = record.model.get("name") or record.model.get("_target_")
        raise UserError(
            f"{record.id} is of another network or normalization: {network}, mean {record.model.get('mean')}, std "
            f"{record.model.get('std')}; give the same model=, mean= and std="
        )
    return subject


def _has(path: Path, key: str) -> bool:
    """Whether the checkpoint at ``path`` has an entry ``key``."""
    if path.suffix == ".safetensors" or is_graph(path):
        return False
    content = checkpoint.read(path)
    return isinstance(content, Mapping) and key in content


def _kind(record: Record) -> str:
    """Which weights of a run were evaluated: last, average or best."""
    return record.weights.partition(" ")[0]


def _recorded_network(record: Record) -> dict[str, Any]:
    """The network that ``record`` names. Raises UserError if it is none of this project or timm."""
    model = dict(record.training.get("model", {}) if record.seed is not None else record.model)
    if model.get("_target_") == CREATE:
        del model["_target_"]  # any other is refused like every key of Hydra
    return foreign_network(model, record.id)


def images_of(record: Record, subject: Subject) -> ImageSet:
    """The images of the record. Raises UserError if the data has others."""
    _, test = load_data(subject.data if subject.run else dataclasses.replace(subject.data, test_size=None))
    sizes = [None, subject.data.test_size, record.n]
    found = next((cut for size in sizes if (cut := test.balanced(size)).sha256 == record.data_sha256), None)
    if found is None:
        raise UserError(f"{subject.data.name} has other test images than {record.id}: give its data=… and paths.data=…")
    return found


def protocol_of(record: Record) -> EvaluationProtocol:
    """How the record was evaluated."""
    return EvaluationProtocol(
        attacks=record.attacks,
        norm=cast(EvaluatedNorm, record.norm.lower()),
        eps=record.eps,
        eps_text=record.eps_text,
        n=None,
        batch_size=record.batch_size,
        seed=record.evaluation_seed,
        search=record.search,
        package=record.versions.get("attacks") == "pyautoattack",
    )

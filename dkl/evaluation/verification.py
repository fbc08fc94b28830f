"""``verify``: evaluates a random part of a record's images again, and compares the flags.

The images are drawn by a seed and attacked by the record's suite, norm, radius and seed. An image's random draws depend
on its place in a batch, so a few flags can differ although nothing is wrong. What was found bounds how many flags of
the whole record can differ. Nothing in the record is run: it may name this project's networks, and no other code.
"""

import dataclasses
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import OmegaConf

from dkl import records
from dkl.assembly import load_data
from dkl.config import EvaluateConfig, typed
from dkl.config.choices import choices
from dkl.config.overrides import compose_explained, expand_network
from dkl.console import say
from dkl.data import ImageSet
from dkl.device import arithmetic, pick_device
from dkl.errors import UserError
from dkl.evaluation.attacking import AttackTask, attack
from dkl.evaluation.foreign import foreign_subject
from dkl.evaluation.network import load_network
from dkl.evaluation.outputs import provenance
from dkl.evaluation.outputs.make_record import flags_of
from dkl.evaluation.protocol import EvaluationProtocol
from dkl.evaluation.subject import Subject, run_subject
from dkl.evaluation.weights import Weights, weights_sha256
from dkl.files import digest
from dkl.models.sources import is_graph
from dkl.models.sources.hub import REFUSED
from dkl.models.sources.timm_names import CREATE
from dkl.records import Record
from dkl.records.verification import Verification, checksum, save_verification
from dkl.threat import EvaluatedNorm

KEYS = ("checkpoint", "run", "model", "network", "arguments", "mean", "std", "data", "device", "threads", "paths")
"""Keys of ``dkl evaluate`` that a verification takes; the others are those of the record."""


def verify(path: Path, overrides: Sequence[str], *, checked: int = 750, seed: int = 0) -> Verification:
    """Evaluate ``checked`` random images of the record in ``path`` again; save and return what was found.

    ``overrides`` are those of ``dkl evaluate`` that name the network and its data: ``checkpoint=FILE`` or
    ``run=FOLDER``, and ``model=`` and ``data=`` if the record does not tell. Raises UserError if the record is not
    usable, or if the weights, the network or the images are not those of the record.
    """
    record, flags = records.load(path), records.load_flags(path)
    if record.segmented is not None or record.bound is not None:
        kind = "labels pixels" if record.segmented else "is of bounded AutoAttack"
        raise UserError(f"{path} {kind}, which cannot be verified: verify a record of attacks=standard")
    config = _config(record, overrides)
    subject = _subject(record, config)
    model, layout = load_network(subject)
    if weights_sha256(model.state_dict()) != record.checkpoint_sha256:
        raise UserError(f"{subject.weights.path} holds other weights than those of {record.id}: give their file")
    test = _test_images(record, subject)
    chosen = np.sort(np.random.default_rng(seed).permutation(record.n)[: min(checked, record.n)])
    part, device = test.at(torch.from_numpy(chosen)), pick_device(config.device)
    # An interrupted verification continues here.
    progress = Path(config.paths.results) / "runs" / "evaluations" / digest([checksum(record), len(part), seed])
    say(layout)
    say(f"{record.id}: {', '.join(record.attacks) or 'accuracy'} on {len(part)} of {record.n} images")
    task = AttackTask(
        model=model.to(device),
        images=part.tensor(),
        labels=part.labels,
        num_classes=subject.data.num_classes,
        protocol=_protocol(record),
        device=device,
        folder=progress,
    )
    with arithmetic(device, products="ieee", convolutions="tf32"):  # as in dkl evaluate
        found = attack(task)
    again = flags_of(found.state, None)
    differing = [flags[name][chosen] != again[name] for name in again if name in flags]
    last = record.attacks[-1] if record.attacks else "clean"
    verification = Verification(
        id=record.id,
        record_sha256=checksum(record),
        n=record.n,
        checked=len(part),
        differ=int(np.any(differing, axis=0).sum()),
        lost=int((flags[last][chosen] & ~again[last]).sum()),
        seed=seed,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions=provenance.versions(),
        hardware=provenance.hardware(device),
    )
    save_verification(verification, path.parent)
    shutil.rmtree(progress, ignore_errors=True)
    return verification


def _config(record: Record, overrides: Sequence[str]) -> EvaluateConfig:
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


def _subject(record: Record, config: EvaluateConfig) -> Subject:
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
        key = "average" if _kind(record) == "average" else "model"
        return dataclasses.replace(subject, weights=Weights(subject.weights.path, key))
    if digest(subject.settings) != record.config_hash:
        raise UserError(f"{record.id} is of another network, or of one with another normalization: {record.model}")
    return subject


def _kind(record: Record) -> str:
    """Which weights of a run were evaluated: last, average or best."""
    return record.weights.partition(" ")[0]


def _recorded_network(record: Record) -> dict[str, Any]:
    """The network that ``record`` names. Raises UserError if it is none of this project or timm."""
    model = record.training.get("model", {}) if record.seed is not None else record.model
    if model.get("_target_") != CREATE or REFUSED & (set(model) - {"_target_"}):
        raise UserError(f"{record.id} names no network that can be built safely: add model=package.module:function")
    return dict(OmegaConf.to_container(OmegaConf.create(model)))  # type: ignore[arg-type]  # a mapping


def _test_images(record: Record, subject: Subject) -> ImageSet:
    """The images of the record. Raises UserError if the data has others."""
    _, test = load_data(subject.data if subject.run else dataclasses.replace(subject.data, test_size=None))
    sizes = [None, subject.data.test_size, record.n]
    found = next((cut for size in sizes if (cut := test.balanced(size)).sha256 == record.data_sha256), None)
    if found is None:
        raise UserError(f"{subject.data.name} has other test images than {record.id}: give its data=… and paths.data=…")
    return found


def _protocol(record: Record) -> EvaluationProtocol:
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

"""Files of records: ``<id>.json``, and beside it the per-image flags (``.npz``) and the curves of the run (``.csv``).

Records are written atomically, with checksums of all three files. They are read strictly: a file that is broken, that
was changed, or that contradicts its flags, its training configuration or its name is an error that names the file.
This finds mistakes and careless edits. Somebody who edits a record, its flags and its checksums consistently is not
found: only evaluating the weights again shows that.
"""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dkl.errors import UserError
from dkl.records.record import AttackResult, Bound, Curves, FewLabels, Flags, Record, Segmented
from dkl.sampling_bound import count_interval
from dkl.storage.files import ARCHIVE_ERRORS, LARGEST_FLAGS, damage, read_text, write_atomically, write_rows, write_text
from dkl.threat import SAMPLED, parse_eps
from dkl.validation import first_mistake

_READER = TypeAdapter(Record)

NESTED = {"": Record, "per_attack": AttackResult, "few_labels": FewLabels, "segmented": Segmented}
"""The classes of a record's parts, by field."""

GROUPS = ("data", "model", "task", "selection", "optimizer", "schedule", "trainer", "budget")
OPTIONAL_GROUPS = ("loss", "attack", "averaging")
"""Parts of a training configuration that are mappings; the optional ones may be None."""

DATASET_SIZES = {
    "cifar10": (50_000, 10_000),
    "cifar100": (50_000, 10_000),
    "imagenet": (1_281_167, 50_000),
    "imagenet_lt": (115_846, 50_000),
    "digits": (1_442, 355),
}
"""Training and test images of datasets, so that nothing is downloaded or read to count them."""

TEST_IMAGES = {"camvid": 233, "ade20k": 2_000} | {name: testing for name, (_, testing) in DATASET_SIZES.items()}
"""Images in the whole test set of each dataset whose test set is known."""

CLOCK_ERROR = timedelta(days=1)
"""A record may be this much newer than now: clocks of two machines differ."""


def save(
    record: Record,
    flags: Mapping[str, NDArray[Any]],
    folder: Path,
    curves: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Write ``record``, the ``flags`` [n] of each attack and the ``curves`` of its run; return the record's path.

    A record of pixels has counts [n, C] instead of flags: ``hits``, ``true`` and ``predicted``.
    """
    path = folder / f"{record.id}.json"
    content = dataclasses.asdict(record)
    json.dumps(content, allow_nan=False)  # raises before anything is written
    arrays: dict[str, Any] = dict(flags)
    # The record is written last: if it exists, so do its flags and curves.
    write_atomically(path.with_suffix(".npz"), lambda file: np.savez_compressed(file, **arrays))
    if curves:
        write_rows(path.with_suffix(".csv"), curves)
    suffixes = {"flags": ".npz"} | ({"curves": ".csv"} if curves else {})
    content["checksums"] = {kind: _file_sha256(path.with_suffix(suffix)) for kind, suffix in suffixes.items()}
    content["checksums"]["record"] = _content_sha256(content)
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")
    return path


def _file_sha256(path: Path) -> str:
    content = path.read_bytes()
    # git may store text files with other line ends.
    return hashlib.sha256(content.replace(b"\r\n", b"\n") if path.suffix == ".csv" else content).hexdigest()


def _content_sha256(content: Mapping[str, Any]) -> str:
    """Hash of a record's values, without its own checksum; the layout of the JSON does not matter."""
    others = {kind: value for kind, value in content["checksums"].items() if kind != "record"}
    text = json.dumps({**content, "checksums": others}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def load(path: Path) -> Record:
    """Read the record in ``path`` and compare it with its flags and its checksums.

    Raises UserError, which names the file, if it is broken, of another schema, contradicts its flags, or was changed.
    """
    try:
        text = read_text(path)
        record: Record = _READER.validate_json(text)
        flags = load_flags(path)
        why = (
            _with_its_name(record, path)
            or _with_its_training(record)
            or (_with_its_flags if record.segmented is None else _with_its_counts)(record, flags)
            or _with_its_files(record, json.loads(text), path)
        )
    except ValidationError as error:
        why = first_mistake(error, NESTED)
    except (OSError, ValueError) as error:
        why = str(error)
    if why:
        raise UserError(f"{path} is not a usable record: {why}; evaluate again, or delete the file")
    return record


def why_unusable(path: Path) -> str | None:
    """Return what ``load`` would raise on the record in ``path``, as one line; None if it is usable."""
    try:
        load(path)
    except UserError as error:
        return str(error)
    return None


def load_flags(path: Path) -> Flags:
    """Read the flags of the record at ``path``: ``clean``, ``top5`` if known, and every attack, bool [n] each.

    Raises UserError if there is no usable file.
    """
    source = path.with_suffix(".npz")
    try:
        if not source.exists():
            raise ValueError("it is missing")
        if why := damage(source, LARGEST_FLAGS):
            raise ValueError(why)
        with source.open("rb") as file, np.load(file, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except ARCHIVE_ERRORS as error:
        raise UserError(f"{source} is not a usable file of flags: {error}; evaluate again") from None


def load_curves(path: Path) -> Curves:
    """Read the curves of the record at ``path``; empty if it has none.

    A row holds only what was measured after that epoch. Raises UserError if the file is broken, changed or lost.
    """
    source = path.with_suffix(".csv")
    try:
        known = json.loads(read_text(path)).get("checksums", {}) if path.exists() else {}
        if not source.exists():
            if "curves" in known:
                raise ValueError("it is missing")
            return []
        lines = csv.DictReader(io.StringIO(read_text(source), newline=""), strict=True)
        rows = [{key: float(cell) for key, cell in row.items() if cell} for row in lines]
        if not all("epoch" in row and "".join(row).isprintable() for row in rows):
            raise ValueError("a row has no epoch, or a name with control characters")
        if "curves" in known and known["curves"] != _file_sha256(source):
            raise ValueError("it does not match its checksum")
        return rows
    except (OSError, TypeError, ValueError, csv.Error) as error:
        raise UserError(f"{source} is not a usable file of curves: {error}; evaluate again") from None


def load_all(folder: Path) -> tuple[list[Record], list[str]]:
    """Read every record in ``folder``, sorted by id; also return one message per file that is not a usable record.

    Records of equal weights under different seeds are left out: training never ends with the same weights from
    different seeds, so at least one of them is a copy.
    """
    usable: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            usable.append(load(path))
        except UserError as error:
            problems.append(str(error))
    by_weights: dict[str, list[Record]] = {}
    for record in usable:
        if record.seed is not None:
            by_weights.setdefault(record.checkpoint_sha256, []).append(record)
    copies: set[str] = set()
    for same in by_weights.values():
        if len({record.seed for record in same}) > 1:
            names = ", ".join(f"{record.id} (seed {record.seed})" for record in same)
            why = f"different seeds have equal weights: {names}; delete the copy"
            problems += [f"{folder / record.id}.json is not a usable record: {why}" for record in same]
            copies |= {record.id for record in same}
    return [record for record in usable if record.id not in copies], problems


# Contradictions: each function returns the first one in words, or None.


def _with_its_name(record: Record, path: Path) -> str | None:
    """The id is the file's name, the radius that of its text, and the time is in the past."""
    if record.id != path.stem:
        return f"its id is {record.id}, but the file is named {path.name}"
    try:
        eps = parse_eps(record.eps_text)
    except UserError as error:
        return f"eps_text: {error}"
    if eps != record.eps:
        return f"eps is {record.eps}, but its text is {record.eps_text}"
    try:
        created = record.time
    except ValueError:
        return f"created is {record.created!r}, which is no time such as 2025-01-31T12:00:00+00:00"
    if created > datetime.now(UTC) + CLOCK_ERROR:
        return f"created is {record.created}, which is more than a day in the future"
    return None


def _with_its_training(record: Record) -> str | None:
    """Budget, seed and dataset are those of the training configuration; weights trained elsewhere have budget own."""
    training = record.training
    optional = {key: training.get(key) or {} for key in OPTIONAL_GROUPS}
    groups = {key: training.get(key, {}) for key in GROUPS} | optional
    if broken := [key for key, value in groups.items() if not isinstance(value, Mapping)]:
        return f"training.{broken[0]} is not a group of a configuration"
    if record.seed is None:
        if record.budget != "own":
            return f"weights trained elsewhere have budget own, not {record.budget}"
        images = TEST_IMAGES.get(record.dataset)
    else:
        budget, data = groups["budget"].get("name"), groups["data"]
        for name, value, trained in (
            ("budget", record.budget, budget),
            ("seed", record.seed, training.get("seed")),
            ("dataset", record.dataset, data.get("name", record.dataset)),
        ):
            if value != trained:
                return f"{name} is {value}, but it was trained with {name} {trained}"
        fixed = budget in ("paper", "mini")  # only there the number of test images is known
        images = (data.get("test_size") or TEST_IMAGES.get(data.get("name", ""))) if fixed else None
    if images and record.n != images and not record.partial:
        return f"n is {record.n} of {images} test images, but partial is false"
    return None


def iou_of(counts: Mapping[str, NDArray[Any]]) -> NDArray[np.float64]:
    """IoU per class from ``hits``, ``true`` and ``predicted`` [n, C]; NaN if the class does not occur."""
    hits, true, predicted = (counts[name].sum(axis=0) for name in ("hits", "true", "predicted"))
    union = true + predicted - hits
    return np.divide(hits, union, out=np.full(len(hits), np.nan), where=union > 0)


def _with_its_counts(record: Record, counts: Mapping[str, NDArray[Any]]) -> str | None:
    """Mean IoU, IoU per class and pixel accuracy are those of the counts."""
    result = record.segmented
    assert result is not None
    if lost := {"hits", "true", "predicted"} - set(counts):
        return f"its file of counts lacks {', '.join(sorted(lost))}"
    if any(counts[name].shape != (record.n, len(result.iou)) for name in ("hits", "true", "predicted")):
        return f"n is {record.n} and there are {len(result.iou)} classes, but its counts are {counts['hits'].shape}"
    measured = iou_of(counts)
    stated = np.array([np.nan if value is None else value for value in result.iou.values()])
    if not np.allclose(measured, stated, rtol=0, atol=1e-9, equal_nan=True):
        return "iou is not that of its counts"
    if abs(np.nanmean(measured) - result.miou) > 1e-9:
        return f"miou is {result.miou}, but its counts give {np.nanmean(measured)}"
    accuracy = counts["hits"].sum() / counts["true"].sum()
    if abs(accuracy - record.clean) > 1e-9:
        return f"clean is {record.clean}, but its counts give {accuracy}"
    return None


def _with_its_flags(record: Record, flags: Flags) -> str | None:
    """Every accuracy is the mean of its flags, and each attack leaves some of the images that were left before."""
    flags = dict(flags)
    for name, severities in (record.corruptions or {}).items():
        correct = flags.pop(name, np.empty(0))
        if correct.ndim != 2 or len(correct) != len(severities) or not correct.size or correct.dtype != np.bool_:
            return f"its file of flags lacks {name} in {len(severities)} severities"
        if not np.allclose(correct.mean(axis=1), severities, rtol=0, atol=1e-9):
            return f"corruptions.{name} is not the mean of its flags"
    sampled = flags.pop("sampled", None) if record.bound else None
    accuracies = {"clean": record.clean, **{name: record.per_attack[name].robust for name in record.attacks}}
    if record.top5 is not None:
        accuracies["top5"] = record.top5
    for name in accuracies:
        if name not in flags:
            return f"its file of flags lacks {name}"
        if flags[name].shape != (record.n,) or flags[name].dtype != np.bool_:
            return f"n is {record.n}, but its flags {name} are {flags[name].dtype} of shape {flags[name].shape}"
    if unknown := sorted(flags.keys() - accuracies.keys()):
        return f"its file of flags has {unknown[0]}, which the record lacks"
    for name, accuracy in accuracies.items():
        if abs(accuracy - flags[name].mean()) > 1e-9:
            return f"{name} is {accuracy}, but the mean of its flags is {flags[name].mean()}"
    order = [name for name in ("top5", "clean", *record.attacks) if name in accuracies]
    for before, after in pairwise(order):
        if (flags[after] & ~flags[before]).any():
            return f"its flags {after} count images as correct that {before} has as misclassified"
    if record.robust is not None and record.robust != min(result.robust for result in record.per_attack.values()):
        return f"robust is {record.robust}, but it must be the lowest accuracy in per_attack"
    return _with_its_sample(record, record.bound, flags, sampled) if record.bound else None


def _with_its_sample(record: Record, bound: Bound, flags: Flags, sampled: NDArray[np.bool_] | None) -> str | None:
    """Only sampled images fell in the sample, and the interval is that of their number."""
    if sampled is None or sampled.shape != (record.n,) or sampled.dtype != np.bool_:
        return "its file of flags lacks sampled"
    before, after = flags["apgd-t"], flags[SAMPLED["square"]]
    if (sampled & ~before).any() or (before & ~after & ~sampled).any():
        return "its flags sampled are not those of its attacks"
    standing = int(before.sum())
    falls = count_interval(standing, int(sampled.sum()), int(standing - after.sum()))
    expected = ((standing - falls.high) / record.n, (standing - falls.low) / record.n)
    if max(abs(bound.low - expected[0]), abs(bound.high - expected[1])) > 1e-9:
        return f"bound is [{bound.low}, {bound.high}], but its sample gives [{expected[0]}, {expected[1]}]"
    return None


def _with_its_files(record: Record, content: Mapping[str, Any], path: Path) -> str | None:
    """Values and flags have their checksums, and the best epoch is that of the curves.

    Old records have no checksums. Broken curves are reported by ``load_curves``.
    """
    known = content.get("checksums") or {}
    if known and known.get("record") != _content_sha256(content):
        return "its values were changed or damaged, they do not match their checksum"
    if "flags" in known and known["flags"] != _file_sha256(path.with_suffix(".npz")):
        return "its flags are not those that were saved with it, they do not match their checksum"
    try:
        rows = [row for row in load_curves(path) if row["epoch"] == record.best_epoch]
    except UserError:
        return None
    metric = "accuracy" if record.segmented is None else "miou"
    measured = [row[key] for row in rows for key in (f"test_{metric}", f"average_test_{metric}") if key in row]
    if record.best is None or not measured or any(abs(value - record.best) < 1e-6 for value in measured):
        return None
    return f"best is {record.best}, but the curves have {measured[0]} after epoch {record.best_epoch}"

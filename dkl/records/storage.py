"""Files of records: ``<id>.json``, and beside it the per-image flags (``.npz``) and the curves of the run (``.csv``).

Records are written atomically, with checksums of all three files. They are read strictly: a file that is broken, that
was changed, or that contradicts its flags is an error that names the file.
"""

import csv
import dataclasses
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from dkl.errors import UserError
from dkl.records.checks import contradiction, copies
from dkl.records.record import AttackResult, Curves, FewLabels, Flags, Record, Segmented
from dkl.storage.files import ARCHIVE_ERRORS, LARGEST_FLAGS, damage, read_text, write_atomically, write_rows, write_text
from dkl.validation import first_mistake

SUFFIXES = {"flags": ".npz", "curves": ".csv"}

_READER = TypeAdapter(Record)

NESTED = {"": Record, "per_attack": AttackResult, "few_labels": FewLabels, "segmented": Segmented}
"""The classes of a record's parts, by field."""


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
    kinds = ("flags", "curves") if curves else ("flags",)
    content["checksums"] = {kind: _file_sha256(path.with_suffix(SUFFIXES[kind])) for kind in kinds}
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
        why = contradiction(record, path, load_flags(path)) or _changed(json.loads(text), path) or _best(record, path)
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


def _changed(content: Mapping[str, Any], path: Path) -> str | None:
    """Which of the record's checksums its values or its flags do not have, in words. Old records have none."""
    known = content.get("checksums") or {}
    if known and known.get("record") != _content_sha256(content):
        return "its values were changed or damaged, they do not match their checksum"
    if "flags" in known and known["flags"] != _file_sha256(path.with_suffix(".npz")):
        return "its flags are not those that were saved with it, they do not match their checksum"
    return None


def _best(record: Record, path: Path) -> str | None:
    """Whether the best epoch contradicts the curves, in words. Broken curves are reported by ``load_curves``."""
    try:
        rows = [row for row in load_curves(path) if row["epoch"] == record.best_epoch]
    except UserError:
        return None
    metric = "accuracy" if record.segmented is None else "miou"
    known = [row[key] for row in rows for key in (f"test_{metric}", f"average_test_{metric}") if key in row]
    if record.best is None or not known or any(abs(value - record.best) < 1e-6 for value in known):
        return None
    return f"best is {record.best}, but the curves have {known[0]} after epoch {record.best_epoch}"


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

    Records of equal weights under different seeds are left out: at least one of them is a copy.
    """
    found: list[Record] = []
    problems: list[str] = []
    for path in sorted(folder.glob("*.json")):
        try:
            found.append(load(path))
        except UserError as error:
            problems.append(str(error))
    same = copies(found)
    for record, why in same:
        problems.append(f"{folder / record.id}.json is not a usable record: {why}")
    ids = {record.id for record, _ in same}
    return [record for record in found if record.id not in ids], problems

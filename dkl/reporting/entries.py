"""Entries of boards that anyone can join: records of several folders, with who was verified, and taken names.

An entry is a record of standard AutoAttack on the whole test set, of weights trained elsewhere or of a run of budget
own or paper. Every entry has its flags beside it: a record that contradicts them is left out when it is read.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dkl.errors import UserError
from dkl.records import Record, load_all
from dkl.records.checks import TEST_IMAGES
from dkl.records.verification import Verification, load_verification
from dkl.reporting.grouping import created_at, group, threat_model
from dkl.reporting.reference import REFERENCE, load_with_reference


@dataclass(frozen=True)
class Entry:
    """A record with its verification, None if there is none, and its ``source``: None for the results folder itself."""

    record: Record
    verification: Verification | None
    source: str | None = None


def load_entries(results: Path, folders: Sequence[Path] = ()) -> tuple[list[Entry], list[str]]:
    """Read the entries of ``results`` and of other ``folders`` of records, with the verifications in ``results``.

    Also returns one message per file or entry that is left out. An id of a second folder that exists already is left
    out unless it is the same record.
    """
    own, _ = load_with_reference(results)  # whoever makes tables reports its problems
    found: list[tuple[Record, Path, str | None]] = [(each, results / "records", None) for each in own]
    problems: list[str] = []
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"records={folder} is no folder: give folders with records, such as results/records")
        records, broken = load_all(folder)
        problems += broken
        found += [(record, folder, folder.resolve().parent.name) for record in records]
    entries: list[Entry] = []
    known: dict[str, Record] = {}
    for record, folder, source in found:
        if not _is_entry(record):
            continue
        if (first := known.setdefault(record.id, record)) is not record:
            if first != record:
                problems.append(f"{folder / record.id}.json: the id is taken by another record; evaluate it again")
            continue
        try:
            entries.append(Entry(record, load_verification(record, results), source))
        except UserError as error:
            problems.append(str(error))
            entries.append(Entry(record, None, source))
    return _without_taken_names(entries, problems), problems


def _is_entry(record: Record) -> bool:
    whole = not record.partial and record.n == TEST_IMAGES.get(record.dataset, record.n)
    comparable = record.budget in ("own", "paper") and not record.id.startswith(f"{REFERENCE}/")
    return record.is_autoattack and record.bound is None and whole and comparable


def _without_taken_names(entries: Iterable[Entry], problems: list[str]) -> list[Entry]:
    """Leave out entries whose name and architecture another network had before, under the same threat model."""
    kept: list[Entry] = []
    named = group(entries, lambda e: (*threat_model(e.record), e.record.method.lower(), e.record.architecture.lower()))
    for same in named.values():
        oldest = min(same, key=lambda entry: created_at(entry.record)).record
        for entry in same:
            record = entry.record
            # Settings of a run may differ under one label, but somebody else's weights need a name of their own.
            if record.row == oldest.row or (record.seed is not None and oldest.seed is not None):
                kept.append(entry)
            else:
                problems.append(
                    f"{record.id}: the name {record.method!r} is taken by {oldest.id}; evaluate again with label=NAME"
                )
    return kept

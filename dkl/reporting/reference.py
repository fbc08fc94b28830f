"""Reference records: those that ship with the project, in ``<results>/reference``, which is a results folder itself.

Tables and the page show them beside the records of the results folder, in rows of their own that are marked, and the
card of an export includes those of its weights. ``dkl reproduce`` never takes them for runs that are done.
"""

from dataclasses import replace
from pathlib import Path

from dkl.records import Record, load_all

REFERENCE = "reference"
"""The folder of reference results inside a results folder, and what begins the ids of reference records."""


def load_with_reference(results: Path) -> tuple[list[Record], list[str]]:
    """Read the records of ``results`` and the reference records, whose ids start with ``reference/``.

    Also returns one message per file that is not a usable record.
    """
    records, problems = load_all(results / "records")
    reference, others = load_all(results / REFERENCE / "records")
    # A run repeated on the same kind of processor has the same id: the prefix keeps the two apart.
    marked = (replace(record, id=f"{REFERENCE}/{record.id}") for record in reference)
    return [*records, *marked], [*problems, *others]


def is_reference(record: Record) -> bool:
    """Return whether ``record`` is a reference record."""
    return record.id.startswith(f"{REFERENCE}/")


def record_file(results: Path, record: Record) -> Path:
    """Return the file of a record that ``load_with_reference`` has read; its flags and curves are beside it."""
    folder = results / REFERENCE if is_reference(record) else results
    return folder / "records" / f"{record.id.removeprefix(f'{REFERENCE}/')}.json"

"""A table of text cells, independent of its file format."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of cells under a header.

    ``alignments`` has one letter per column: ``l`` or ``r``. ``records`` are the ids of the records behind each row, or
    empty. ``essential`` are the headers of the columns that a narrow screen shows first; if empty, it shows all.
    Raises ValueError if the sizes disagree.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    alignments: str
    notes: tuple[str, ...] = ()
    records: tuple[tuple[str, ...], ...] = ()
    essential: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        if {len(self.alignments), *map(len, self.rows)} != {len(self.header)}:
            raise ValueError(f"the header has {len(self.header)} columns: every row and the alignments need as many")
        if not set(self.alignments) <= {"l", "r"}:
            raise ValueError(f"alignments is {self.alignments!r}: only l and r are allowed")
        if self.records and len(self.records) != len(self.rows):
            raise ValueError(f"there are {len(self.rows)} rows, but records of {len(self.records)}: give one per row")


def collapse_spaces(text: str) -> str:
    """Return ``text`` with every run of whitespace replaced by one space."""
    return " ".join(text.split())

"""Tables as Markdown, aligned so that the source can be read too."""

import re

from dkl.reporting.formats.text_table import TextTable, collapse_spaces


def to_markdown(table: TextTable) -> str:
    """Return a heading, the table with columns of equal width, and the notes as a list."""
    cells = [[_escape(cell) for cell in row] for row in (table.header, *table.rows)]
    # Markdown needs at least three hyphens in the rule.
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.header))]
    columns = list(zip(table.alignments, widths, strict=True))
    rule = ["-" * width if side == "l" else "-" * (width - 1) + ":" for side, width in columns]

    def padded(row: list[str]) -> list[str]:
        pairs = zip(row, columns, strict=True)
        return [cell.ljust(width) if side == "l" else cell.rjust(width) for cell, (side, width) in pairs]

    lines = [f"| {' | '.join(row)} |" for row in (padded(cells[0]), rule, *map(padded, cells[1:]))]
    notes = [f"- {_escape(note)}" for note in table.notes]
    return "\n".join([f"## {_escape(table.title)}", "", *lines, "", *notes]) + "\n"


def _escape(text: str) -> str:
    # Only what can start markup inside a cell is escaped, and no interval, to keep the source readable.
    interval = r"\[[-+]?[\d.]+, [-+]?[\d.]+\](?![(\[:])"
    return re.sub(rf"{interval}|([\\|*`<!\[\]])", lambda found: "\\" * bool(found[1]) + found[0], collapse_spaces(text))

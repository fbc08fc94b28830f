"""Tables as plain text for a terminal: columns two spaces apart, without rules."""

import textwrap
from collections.abc import Sequence

from dkl.reporting.formats.text_table import TextTable, collapse_spaces

GAP = "  "

NAMES = 2
"""Columns at the left that name a row and always stay."""


def to_plain(table: TextTable) -> str:
    """Return header and rows, columns padded to equal width."""
    return _aligned(_cells(table), table.alignments)


def to_terminal(table: TextTable, width: int = 80) -> str:
    """Return title, table and notes in lines of at most ``width`` characters, if its rows allow it.

    Columns with the same cell in all rows are left out, from the right, until the table fits; a note says their cells.
    """
    cells = _cells(table)
    shown, common = list(range(len(table.header))), list[str]()
    for place in reversed(range(NAMES, len(table.header))):
        if sum(max(len(row[i]) for row in cells) + len(GAP) for i in shown) - len(GAP) <= width:
            break
        if len({row[place] for row in cells[1:]}) == 1:
            shown.remove(place)
            common.insert(0, f"{cells[0][place]} {cells[1][place]}")
    rows = _aligned([[row[i] for i in shown] for row in cells], [table.alignments[i] for i in shown])
    lines = [*([f"In all rows: {', '.join(common)}."] if common else []), *table.notes]
    notes = "".join(f"{_wrapped(note, width)}\n" for note in lines)
    return f"{textwrap.fill(table.title, width)}\n\n{rows}\n{notes}"


def _wrapped(note: str, width: int) -> str:
    return textwrap.fill(note, width, initial_indent="- ", subsequent_indent=GAP, break_on_hyphens=False)


def _cells(table: TextTable) -> list[list[str]]:
    return [[collapse_spaces(cell) for cell in row] for row in (table.header, *table.rows)]


def _aligned(cells: Sequence[Sequence[str]], alignments: Sequence[str]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    columns = list(zip(alignments, widths, strict=True))

    def padded(row: Sequence[str]) -> str:
        pairs = zip(row, columns, strict=True)
        return GAP.join(cell.ljust(width) if side == "l" else cell.rjust(width) for cell, (side, width) in pairs)

    return "".join(f"{padded(row).rstrip()}\n" for row in cells)

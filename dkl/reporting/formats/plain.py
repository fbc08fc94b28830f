"""Tables as plain text for a terminal: columns two spaces apart, without rules."""

from dkl.reporting.formats.text_table import TextTable, collapse_spaces


def to_plain(table: TextTable) -> str:
    """Return header and rows, columns padded to equal width."""
    cells = [[collapse_spaces(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(table.header))]
    columns = list(zip(table.alignments, widths, strict=True))

    def padded(row: list[str]) -> str:
        pairs = zip(row, columns, strict=True)
        return "  ".join(cell.ljust(width) if side == "l" else cell.rjust(width) for cell, (side, width) in pairs)

    return "".join(f"{padded(row).rstrip()}\n" for row in cells)

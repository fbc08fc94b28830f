"""Tables as comma-separated values."""

import csv
import io

from dkl.reporting.formats.text_table import TextTable, collapse_spaces


def to_csv(table: TextTable) -> str:
    """Return the header and the rows, one per line, quoted if needed. Title and notes are left out."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(collapse_spaces, row) for row in (table.header, *table.rows))
    return text.getvalue()

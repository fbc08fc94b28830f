"""Tables as comma-separated values."""

import csv
import io
import re

from dkl.reporting.formats.text_table import TextTable, collapse_spaces


def to_csv(table: TextTable) -> str:
    """Return the header and the rows, one per line, quoted if needed. Title and notes are left out."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_cell, row) for row in (table.header, *table.rows))
    return text.getvalue()


def _cell(text: str) -> str:
    text = collapse_spaces(text)
    # After an apostrophe a spreadsheet sees text, no formula. ``-0.48 [-3.39, +2.19]`` and ``+1 ± 2`` are none anyway.
    return f"'{text}" if re.match(r"[=@]|[+-].*[^\d .,±%+\[\]-]", text) else text

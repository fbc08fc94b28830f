"""A table of strings, written as Markdown, CSV, LaTeX (booktabs) or a self-contained HTML page. Pure functions."""

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from dkl.reporting.formats.page import page

R = TypeVar("R")
Spec = tuple[str, str, Callable[[R], str]]
"""A column: its header, its alignment, and a row's cell."""


@dataclass(frozen=True, kw_only=True)
class TextTable:
    """Rows of cells under a header; ``alignments`` has one letter a column, ``l`` or ``r``. Raises ValueError.

    ``records`` are the ids of the records behind each row, where they are known.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    alignments: str
    notes: tuple[str, ...] = ()
    records: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if {len(self.alignments), *map(len, self.rows)} != {len(self.header)}:
            raise ValueError(f"every row and the alignments need {len(self.header)} columns, as the header has")
        if not set(self.alignments) <= {"l", "r"}:
            raise ValueError(f"alignments are l or r, not {self.alignments!r}")
        if self.records and len(self.records) != len(self.rows):
            raise ValueError(f"there are {len(self.rows)} rows, and the records of {len(self.records)}")


def tabulated(
    columns: Sequence[Spec[R]],
    rows: Sequence[R],
    *,
    title: str,
    notes: tuple[str, ...],
    records: tuple[tuple[str, ...], ...],
) -> TextTable:
    """The table whose ``columns`` are a header, an alignment and a function from a row to its cell each."""
    header, alignments, cells = zip(*columns, strict=True)
    return TextTable(
        title=title,
        header=header,
        rows=tuple(tuple(cell(row) for cell in cells) for row in rows),
        alignments="".join(alignments),
        notes=notes,
        records=records,
    )


def _line(text: str) -> str:
    """``text`` on one line."""
    return " ".join(text.split())


def _markdown(text: str) -> str:
    """``text`` escaped, on one line."""
    return re.sub(r"([\\|*`<])", r"\\\1", _line(text))


def to_markdown(table: TextTable) -> str:
    """A heading, a table in columns of equal width, and the notes as a list."""
    cells = [[_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    widths = [max(3, *(len(row[i]) for row in cells)) for i in range(len(table.header))]
    columns = list(zip(table.alignments, widths, strict=True))
    rule = ["-" * width if side == "l" else "-" * (width - 1) + ":" for side, width in columns]

    def padded(row: list[str]) -> list[str]:
        pairs = zip(row, columns, strict=True)
        return [cell.ljust(width) if side == "l" else cell.rjust(width) for cell, (side, width) in pairs]

    lines = [f"| {' | '.join(row)} |" for row in (padded(cells[0]), rule, *map(padded, cells[1:]))]
    notes = [f"- {_markdown(note)}" for note in table.notes]
    return "\n".join([f"## {_markdown(table.title)}", "", *lines, "", *notes]) + "\n"


def to_csv(table: TextTable) -> str:
    """Header and rows alone, each on one line, quoted where needed."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(map(_line, row) for row in (table.header, *table.rows))
    return text.getvalue()


_LATEX = {character: "\\" + character for character in "&%$#_{}"} | {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    '"': "''",
    "`": r"\textasciigrave{}",
    "\N{EN DASH}": r"\textendash{}",
    "\N{EM DASH}": r"\textemdash{}",
    "±": r"$\pm$",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "·": r"$\cdot$",
    "†": r"$^\dagger$",
    "‡": r"$^\ddagger$",
    "α": r"$\alpha$",
    "β": r"$\beta$",
    "γ": r"$\gamma$",
    "ε": r"$\varepsilon$",
    "λ": r"$\lambda$",
    "μ": r"$\mu$",
    "σ": r"$\sigma$",
    "τ": r"$\tau$",
}


def _latex_character(character: str) -> str:
    """What pdflatex sets for one character; accents it may lack a glyph for are dropped, the rest becomes ``?``."""
    if character in _LATEX or character.isascii():
        return _LATEX.get(character, character)
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(letter, letter) for letter in plain) or "?"


def _latex(text: str) -> str:
    """``text`` escaped, on one line; ``--`` stays two hyphens."""
    text = "".join(character for character in _line(text) if character.isprintable())
    return re.sub("-(?=-)", "-{}", "".join(map(_latex_character, text)))


def _latex_float(table: TextTable, rows: Sequence[Sequence[str]], title: str, label: str) -> list[str]:
    """A float of ``rows``, shrunk to the width of the text where it is wider."""
    header, *body = (" & ".join(map(_latex, row)) + r" \\" for row in (table.header, *rows))
    return [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex(title)}}}",
        rf"  \label{{tab:{label}}}",
        r"  \resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"  \begin{{tabular}}{{{table.alignments}}}",
        r"    \toprule",
        f"    {header}",
        r"    \midrule",
        *(f"    {row}" for row in body),
        r"    \bottomrule",
        r"  \end{tabular}}",
        r"\end{table}",
    ]


PAGE = 40
"""Rows of a table that a page of LaTeX has room for."""


def to_latex(table: TextTable, label: str) -> str:
    """A table float, or one for every ``PAGE`` rows, and its notes as text; needs packages booktabs and graphicx."""
    pages = [table.rows[start : start + PAGE] for start in range(0, max(1, len(table.rows)), PAGE)]
    lines = [r"% needs \usepackage{booktabs,graphicx}", *_latex_float(table, pages[0], table.title, label)]
    for number, rows in enumerate(pages[1:], 2):
        lines += _latex_float(table, rows, f"{table.title} (part {number})", f"{label}-{number}")
    lines += [rf"{{\footnotesize\raggedright {_latex(note)}\par}}" for note in table.notes]
    return "\n".join(lines) + "\n"


def html_table(table: TextTable, method: Callable[[str, Sequence[str]], str] | None = None) -> str:
    """The table without its title, and its notes as a list. ``method`` makes HTML of a row's method and records."""

    def cells(row: Sequence[str], tag: str, content: str = "{}") -> str:
        columns = zip(row, table.alignments, strict=True)
        return "".join(f'<{tag} class="{side}">{content.format(cell)}</{tag[:2]}>' for cell, side in columns)

    rows = [[html.escape(cell) for cell in row] for row in table.rows]
    if method and "Method" in table.header:
        column = table.header.index("Method")
        for escaped, row, records in zip(rows, table.rows, table.records or [()] * len(rows), strict=True):
            escaped[column] = method(row[column], records)
    header = cells([html.escape(cell) for cell in table.header], 'th scope="col"', '<button type="button">{}</button>')
    body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
    notes = "".join(f"<li>{html.escape(note)}</li>\n" for note in table.notes)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{html.escape(table.title)}">\n<table>\n'
        f"<thead><tr>{header}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</div>\n"
        + (f'<ul class="notes">\n{notes}</ul>' if notes else "")
    )


def to_html(table: TextTable) -> str:
    """A page that needs nothing else: style and the script that sorts by a clicked header are inside it."""
    title = html.escape(table.title)
    body = f"<main>\n<h1>{title}</h1>\n{html_table(table)}\n</main>"
    return page(title=title, body=body, script='sortable(document.querySelector("table"));\n')

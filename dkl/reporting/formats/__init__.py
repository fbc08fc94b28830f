"""A table of text cells, and how it is written: as Markdown, CSV, LaTeX, HTML, or plain text for a terminal.

Other texts are filled in from the templates of this package (``*.j2``). HTML pages are self-contained, share one style
in light and dark, and their tables sort by a clicked header.
"""

import csv
import io
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import jinja2

GAP = "  "
"""Between two columns of plain text."""

NAMES = 2
"""Columns at the left that name a row and always stay in a terminal."""

PAGE = 40
"""Rows of a LaTeX table that fit on a page."""


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


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _padded(row: Sequence[str], alignments: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the cells of a row, filled up to the ``widths`` of their columns."""
    cells = zip(row, alignments, widths, strict=True)
    return [cell.ljust(width) if side == "l" else cell.rjust(width) for cell, side, width in cells]


# Markdown, aligned so that the source can be read too.


def to_markdown(table: TextTable) -> str:
    """Return a heading, the table with columns of equal width, and the notes as a list."""
    cells = [[_escape_markdown(cell) for cell in row] for row in (table.header, *table.rows)]
    # Markdown needs at least three hyphens in the rule.
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = [
        "-" * width if side == "l" else "-" * (width - 1) + ":"
        for side, width in zip(table.alignments, widths, strict=True)
    ]
    lines = [f"| {' | '.join(_padded(row, table.alignments, widths))} |" for row in (cells[0], rule, *cells[1:])]
    notes = [f"- {_escape_markdown(note)}" for note in table.notes]
    return "\n".join([f"## {_escape_markdown(table.title)}", "", *lines, "", *notes]) + "\n"


def _escape_markdown(text: str) -> str:
    # Only what can start markup inside a cell is escaped, and no interval, to keep the source readable.
    interval = r"\[[-+]?[\d.]+, [-+]?[\d.]+\](?![(\[:])"
    markup = rf"{interval}|([\\|*`<!\[\]])"
    return re.sub(markup, lambda match: "\\" * bool(match[1]) + match[0], _collapse_spaces(text))


# Comma-separated values.


def to_csv(table: TextTable) -> str:
    """Return the header and the rows, one per line, quoted if needed. Title and notes are left out."""
    # After an apostrophe a spreadsheet sees text, no formula. ``-0.48 [-3.39, +2.19]`` and ``+1 ± 2`` are none anyway.
    formula = re.compile(r"^(?=[=@]|[+-].*[^\d .,±%+\[\]-])")
    rows = [map(_collapse_spaces, row) for row in (table.header, *table.rows)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([formula.sub("'", text) for text in row] for row in rows)
    return file.getvalue()


# Plain text: columns two spaces apart, without rules.


def to_plain(table: TextTable) -> str:
    """Return header and rows, columns padded to equal width."""
    return _aligned([list(map(_collapse_spaces, row)) for row in (table.header, *table.rows)], table.alignments)


def to_terminal(table: TextTable, width: int = 80) -> str:
    """Return title, table and notes in lines of at most ``width`` characters, if its rows allow it.

    Columns with the same cell in all rows are left out, from the right, until the table fits; a note says their cells.
    """
    cells = [list(map(_collapse_spaces, row)) for row in (table.header, *table.rows)]
    shown, common = list(range(len(table.header))), list[str]()
    for place in reversed(range(NAMES, len(table.header))):
        if sum(max(len(row[i]) for row in cells) + len(GAP) for i in shown) - len(GAP) <= width:
            break
        if len({row[place] for row in cells[1:]}) == 1:
            shown.remove(place)
            common.insert(0, f"{cells[0][place]} {cells[1][place]}")
    rows = _aligned([[row[i] for i in shown] for row in cells], [table.alignments[i] for i in shown])
    notes = [*([f"In all rows: {', '.join(common)}."] if common else []), *table.notes]
    text = f"{textwrap.fill(table.title, width)}\n\n{rows}\n"
    for note in notes:
        text += textwrap.fill(note, width, initial_indent="- ", subsequent_indent=GAP, break_on_hyphens=False) + "\n"
    return text


def _aligned(cells: Sequence[Sequence[str]], alignments: Sequence[str]) -> str:
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "".join(f"{GAP.join(_padded(row, alignments, widths)).rstrip()}\n" for row in cells)


# LaTeX floats with booktabs rules.

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


def to_latex(table: TextTable, label: str) -> str:
    """Return a table float, or one per ``PAGE`` rows, and its notes as text.

    The document needs the packages booktabs and graphicx.
    """
    lines = [r"% needs \usepackage{booktabs,graphicx}"]
    for number, start in enumerate(range(0, max(1, len(table.rows)), PAGE), 1):
        title, name = (table.title, label) if number == 1 else (f"{table.title} (part {number})", f"{label}-{number}")
        lines += _latex_float(table, table.rows[start : start + PAGE], title, name)
    lines += [rf"{{\footnotesize\raggedright {_latex(note)}\par}}" for note in table.notes]
    return "\n".join(lines) + "\n"


def _latex_float(table: TextTable, rows: Sequence[Sequence[str]], title: str, label: str) -> list[str]:
    """Return a float of ``rows``, scaled down if it is wider than the text."""
    header, *body = (" & ".join(map(_latex, row)) + r" \\" for row in (table.header, *rows))
    return [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{_latex(title)}}}",
        rf"  \label{{tab:{label}}}",
        # \resizebox would also enlarge a narrow table, hence the comparison of widths.
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


def _latex(text: str) -> str:
    """Return ``text`` as one line of pdflatex source: accents are dropped, other unknown characters become ``?``."""
    text = "".join(character for character in _collapse_spaces(text) if character.isprintable())
    source = ""
    for character in text:
        plain = character
        if character not in _LATEX and not character.isascii():
            # NFKD splits accents from their letters, so that dropping non-ASCII characters keeps the letters.
            plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode() or "?"
        source += "".join(_LATEX.get(letter, letter) for letter in plain)
    # TeX sets -- as a dash: an empty group keeps the hyphens apart.
    return re.sub("-(?=-)", "-{}", source)


# HTML.


def to_html(table: TextTable) -> str:
    """Return a page with the table, its title and its notes."""
    return render("formats/table_page.html.j2", table=table)


def render(template: str, **values: object) -> str:
    """Fill in a template, named by its path in ``dkl/reporting``. All values of a page are escaped."""
    return environment().get_template(template).render(values)


@cache
def environment() -> jinja2.Environment:
    """Return what finds and fills in the templates. ``source(path)`` inserts a file of this package unchanged."""
    loader = jinja2.PackageLoader("dkl.reporting", "")
    made = jinja2.Environment(
        loader=loader,
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # NaN is not JSON: a page with one could not be read at all.
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}

    def unbroken(cell: str, dense: bool) -> str:
        """Make spaces in ``12.34 ± 0.56``, ``[12, 34]``, ``≤ 0.4 %`` unbreakable; if ``dense``, after ± and ≤ only."""
        inside = r"(?<=[±≤]) (?=\d)|(?<=\d) (?=%)" + ("" if dense else r"|(?<=\d) (?=±)|(?<=\[)[^\]]*(?=\])")
        return re.sub(inside, lambda match: match[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)

    made.filters["unbroken"] = unbroken
    # Styles and scripts are inserted as they are: their braces are not template syntax.
    made.globals["source"] = lambda path: loader.get_source(made, path)[0]
    return made

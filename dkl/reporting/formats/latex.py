"""Tables as LaTeX floats with booktabs rules."""

import re
import unicodedata
from collections.abc import Sequence

from dkl.reporting.formats.text_table import TextTable, collapse_spaces

PAGE = 40
"""Rows of a table that fit on a page."""

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
    pages = [table.rows[start : start + PAGE] for start in range(0, max(1, len(table.rows)), PAGE)]
    lines = [r"% needs \usepackage{booktabs,graphicx}", *_latex_float(table, pages[0], table.title, label)]
    for number, rows in enumerate(pages[1:], 2):
        lines += _latex_float(table, rows, f"{table.title} (part {number})", f"{label}-{number}")
    lines += [rf"{{\footnotesize\raggedright {_latex(note)}\par}}" for note in table.notes]
    return "\n".join(lines) + "\n"


def _latex_character(character: str) -> str:
    """Return one character as pdflatex source: accents are dropped, and other unknown characters become ``?``."""
    # NFKD splits accents from their letters, so that dropping non-ASCII characters keeps the letters.
    if character in _LATEX or character.isascii():
        return _LATEX.get(character, character)
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(letter, letter) for letter in plain) or "?"


def _latex(text: str) -> str:
    """Escape ``text`` and put it on one line."""
    text = "".join(character for character in collapse_spaces(text) if character.isprintable())
    # TeX sets -- as a dash: an empty group keeps the hyphens apart.
    return re.sub("-(?=-)", "-{}", "".join(map(_latex_character, text)))


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

"""Every format gives its cells back unchanged. LaTeX compiles if pdflatex is installed."""

import csv
import io
import re
import shutil
import string
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dkl.reporting.formats import TextTable, environment, to_csv, to_html, to_latex, to_markdown, to_terminal

HOSTILE = string.printable + "±–—†‡×éßαμω中😀--- <script>alert(1)</script> https://a.b/c_d?e=f&g"
cell = st.text(max_size=12) | st.sampled_from(
    [HOSTILE, "", "[1]", "*", "\\", "|", "a\\|b", "</td>", "&amp;", "--", "\r"]
)
tables = st.lists(st.tuples(cell, cell, cell), max_size=4).map(lambda rows: table(*rows))


def table(*rows: tuple[str, ...]) -> TextTable:
    """Return a table of three columns, with hostile text in the title, header and notes."""
    return TextTable(title=HOSTILE, header=("A", "B|", "C %"), rows=rows, alignments="lrl", notes=(HOSTILE, "plain"))


def markdown_cells(line: str) -> list[str]:
    """Split a table line as GitHub does: a backslash escapes, a pipe separates."""
    parts = [""]
    for escaped, plain in re.findall(r"\\(.)|(.)", line, flags=re.DOTALL):
        if plain == "|":
            parts.append("")
        else:
            parts[-1] += escaped or plain
    assert parts[0] == parts[-1] == ""
    return [part.strip() for part in parts[1:-1]]


@settings(max_examples=40)
@given(tables)
def test_markdown_gives_its_cells_back_on_one_line(made: TextTable) -> None:
    lines = [line for line in to_markdown(made).split("\n") if line.startswith("|")]
    assert len(lines) == len(made.rows) + 2
    assert len({len(line) for line in lines}) == 1
    for line, row in zip(lines, [made.header, ("---", "---:", "---"), *made.rows], strict=True):
        found = markdown_cells(line)
        if row[1] == "---:":
            assert all(re.fullmatch("-+:?", rule) for rule in found)
            assert [rule.endswith(":") for rule in found] == [False, True, False]
        else:
            assert found == [" ".join(text.split()) for text in row]


def test_a_table_in_a_terminal_fits_80_columns_and_loses_no_cell() -> None:
    header = ("Rank", "Method", "Clean (%)", "95 % interval", "Architecture", "Weights", "n", "Seeds", "Attack")
    common = ("small_cnn", "last", "10000", "1 (0)", "AutoAttack")
    rows = tuple(
        (rank, name, "75.00 ± 1.25", interval, *common)
        for rank, name, interval in (("1", "IKL-AT", "[22.4, 27.8]"), ("2", "TRADES", "[21.4, 26.8]"))
    )
    made = TextTable(title="digits " * 20, header=header, rows=rows, alignments="rlrrllrll", notes=("a note " * 30,))
    text = to_terminal(made)
    assert max(map(len, text.splitlines())) <= 80
    flat = " ".join(text.split())
    for cell in {*header, *rows[0], *rows[1], *common}:
        assert cell in flat
    assert "In all rows: " in flat
    assert ("a note " * 30).strip() in flat
    assert "In all rows" not in to_terminal(made, width=200)
    # A table whose rows differ in every column is shown as it is.
    wide = TextTable(
        title="", header=("a" * 50, "b" * 50, "c"), rows=(("1", "2", "3"), ("4", "5", "6")), alignments="lll"
    )
    assert {"3", "6", "c"} <= set(to_terminal(wide).split())


@settings(max_examples=40)
@given(tables)
def test_csv_reads_back(made: TextTable) -> None:
    expected = [[" ".join(text.split()) for text in row] for row in (made.header, *made.rows)]
    found = list(csv.reader(io.StringIO(to_csv(made), newline="")))
    for cells, texts in zip(found, expected, strict=True):
        for cell, text in zip(cells, texts, strict=True):
            assert cell in (text, f"'{text}")
            assert cell == text or text[0] in "=+-@"


@pytest.mark.parametrize("text", ["=1+1", "+cmd|' /C calc'!A0", "-A1", "@SUM(A1)", "  =1", "-1e3-A2"])
def test_csv_holds_no_formula(text: str) -> None:
    assert f"'{text.strip()}" in to_csv(table(("a", "b", text)))


def test_numbers_and_intervals_are_unchanged_in_csv_and_markdown() -> None:
    cells = ("-0.48 [-3.39, +2.19]", "+1.25 ± 0.5", "[22.4, 27.8]")
    assert ",".join(f'"{text}"' if "," in text else text for text in cells) in to_csv(table(cells))
    assert " | ".join(cells) in re.sub(" +", " ", to_markdown(table(cells)))


@pytest.mark.parametrize("text", ["![x](http://a.b)", "[IKL](http://a.b)", "[1.0, 2.0](http://a.b)", "[a]: http://a.b"])
def test_markdown_holds_no_link_or_image(text: str) -> None:
    assert not re.search(r"(?<!\\)[\[\]!]", to_markdown(table(("a", "b", text))).splitlines()[-4])


@settings(max_examples=40)
@given(tables)
def test_latex_rows_have_three_columns_and_nothing_unescaped(made: TextTable) -> None:
    text = to_latex(made, "x")
    inside = text[text.index(r"\toprule") : text.index(r"\bottomrule")].split("\n")
    rows = [line for line in inside if line.endswith(r"\\")]
    assert len(rows) == len(made.rows) + 1
    for line in rows:
        known = r"\\[&%$#_{}]|\\text[a-z]+\{\}|\{[\[\]*]\}|\$\\[a-z]+\$|\$\^\\d?dagger\$|-\{\}"
        rest = re.sub(known, "", line.removesuffix(r"\\"))
        assert rest.count("&") == 2
        assert rest.isascii()
        assert not set(rest) & set("\\%$#_{}~^[]*<>|`")
        assert "--" not in re.sub(r"\{\}", "{", line)


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
@pytest.mark.parametrize("count", [1, 30], ids=["short", "long"])
def test_latex_compiles_onto_pages(count: int, tmp_path: Path) -> None:
    rows = [("[1]", HOSTILE, "*"), ("*", "[2]", HOSTILE), ("", "", "")] * count
    (tmp_path / "table.tex").write_text(to_latex(table(*rows), "cifar100-Linf-eps8_255-own"), encoding="utf-8")
    main = r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}\input{table}\end{document}"
    (tmp_path / "main.tex").write_text(main, encoding="utf-8")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "main.tex"]
    run = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert run.returncode == 0, run.stdout.decode(errors="replace")[-2000:]
    assert (tmp_path / "main.pdf").is_file()
    assert b"too large" not in run.stdout


class Page(HTMLParser):
    """Reads a page, fails if tags do not close in order, and keeps the cells and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cells: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag != "meta":
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "td":
            self.cells[-1] += data


@settings(max_examples=40)
@given(tables)
def test_html_is_balanced_escaped_and_asks_for_nothing(made: TextTable) -> None:
    text = to_html(made)
    page = Page(text)
    assert page.cells == [content for row in made.rows for content in row]
    assert page.tags.count("script") == page.tags.count("style") == page.tags.count("table") == 1
    assert page.tags.count("th") == len(made.header)
    assert not {"link", "img", "iframe", "a"} & set(page.tags)
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name.startswith("on")]
    assert "prefers-color-scheme: dark" in text
    code = text[text.rindex("<script>") :] + text[text.index("<style>") : text.index("</style>")]
    assert not re.search(r"https?:|url\(|@import|fetch|XMLHttp", code)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        *(({key: value}, "alignments") for key, value in (("rows", (("a", "b"),)), ("header", ("A",)))),
        *(({"alignments": text}, "alignments") for text in ("ll", "lcx")),
        ({"records": (("a",), ("b",))}, "records of 2"),
    ],
    ids=str,
)
def test_a_ragged_table_is_refused(wrong: dict[str, object], why: str) -> None:
    fields = {"title": "t", "header": ("A", "B", "C"), "rows": (("a", "b", "c"),), "alignments": "lll"}
    with pytest.raises(ValueError, match=why):
        TextTable(**{**fields, **wrong})


def test_the_method_links_to_the_run_of_its_row() -> None:
    rows = (("1", "<A>"), ("2", "B"))
    made = TextTable(title="t", header=("Rank", "Method"), rows=rows, alignments="rl")
    template = '{% from "formats/table.html.j2" import html_table %}{{ html_table(table, links) }}'
    text = environment().from_string(template).render(table=made, links=['#a"', None])
    assert re.findall('<td class="l">(.*?)</td>', text) == ['<a href="#a&#34;">&lt;A&gt;</a>', "B"]

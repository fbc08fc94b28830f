"""Self-contained HTML pages from the templates of this package (``*.html.j2``).

Pages share one style in light and dark, their tables sort by a clicked header, and they load nothing else.
"""

import re
from functools import cache

import jinja2

from dkl.reporting.formats.text_table import TextTable


def to_html(table: TextTable) -> str:
    """Return a page with the table, its title and its notes."""
    return render("formats/table_page.html.j2", table=table)


def render(template: str, **values: object) -> str:
    """Fill in a template, named by its path in this package. All values are escaped."""
    return environment().get_template(template).render(values)


def _unbroken(cell: str, dense: bool) -> str:
    """Return ``cell`` with unbreakable spaces in ``12.34 ± 0.56``, ``[12, 34]`` and ``≤ 0.4 %``.

    If ``dense``, only after ± and ≤.
    """
    inside = r"(?<=[±≤]) (?=\d)|(?<=\d) (?=%)" + ("" if dense else r"|(?<=\d) (?=±)|(?<=\[)[^\]]*(?=\])")
    return re.sub(inside, lambda found: found[0].replace(" ", "\N{NO-BREAK SPACE}"), cell)


@cache
def environment() -> jinja2.Environment:
    """Return what finds and fills in the templates. ``source(path)`` inserts a file of this package unchanged."""
    loader = jinja2.PackageLoader("dkl.reporting", "")
    made = jinja2.Environment(
        loader=loader,
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # NaN is not JSON: a page with one could not be read at all.
    made.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    made.filters["unbroken"] = _unbroken
    # Styles and scripts are inserted as they are: their braces are not template syntax.
    made.globals["source"] = lambda path: loader.get_source(made, path)[0]
    return made

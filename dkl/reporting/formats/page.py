"""What every HTML page here is made of: one look in light and dark, tables sorted by a clicked header, no requests."""

from string import Template

STYLE = """
:root { color-scheme: light dark; --ink: #1c2024; --soft: #60646c; --line: #e0e1e6; --paper: #fff; --shade: #f6f7f9; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #edeef0; --soft: #a2a6ae; --line: #363a3f; --paper: #15171a; --shade: #1f2226; }
}
body { margin: 0; padding: 2.5rem 1.5rem; background: var(--paper); color: var(--ink);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 78rem; margin: 0 auto; }
h1 { margin: 0 0 1.25rem; font-size: 1.35rem; font-weight: 600; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 8px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
th, td { padding: .55rem .8rem; }
th { background: var(--shade); border-bottom: 1px solid var(--line); }
tbody tr + tr td { border-top: 1px solid var(--line); }
tbody tr:hover td { background: var(--shade); }
td:last-child { white-space: normal; }
.l { text-align: left; }
.r { text-align: right; }
button { padding: 0; border: 0; background: none; color: inherit; font: inherit; font-weight: 600; cursor: pointer; }
th button::after { content: " ↕"; color: var(--soft); opacity: .5; }
[aria-sort=ascending] button::after { content: " ↑"; opacity: 1; }
[aria-sort=descending] button::after { content: " ↓"; opacity: 1; }
.notes { margin: 1.25rem 0 0; padding-left: 1.1rem; color: var(--soft); font-size: .85rem; }
"""

SORT = r"""
const NONE = "\u2013", NUMBER = /^\[?([+\-\u2212]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.:-])/;

// Sorts a table by a clicked header, then tells which and how. Returns that sort: by column i; back if there is none.
function sortable(table, told = () => {}) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells], original = [...body.rows];
  const text = (row, i) => row.cells[i].textContent.trim();
  const number = cell => parseFloat((NUMBER.exec(cell)?.[1] ?? "").replace("\u2212", "-"));
  const isNumeric = i => original.every(row => text(row, i) === NONE || !isNaN(number(text(row, i))));
  function sort(i, down = i > 0 && isNumeric(i)) {
    heads.forEach(head => head.removeAttribute("aria-sort"));
    if (!(i in heads)) return body.append(...original);
    heads[i].setAttribute("aria-sort", down ? "descending" : "ascending");
    const numeric = isNumeric(i);
    body.append(...[...body.rows].sort((a, b) => {
      const [x, y] = [text(a, i), text(b, i)];
      if ((x === NONE) !== (y === NONE)) return x === NONE ? 1 : -1;
      const order = numeric ? number(x) - number(y) || 0 : x.localeCompare(y, "en", { numeric: true });
      return down ? -order : order;
    }));
  }
  heads.forEach((head, i) => head.addEventListener("click", () => {
    sort(i, head.hasAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : undefined);
    told(i, head.getAttribute("aria-sort"));
  }));
  return sort;
}
"""

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline';
  script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<script>$script</script>
</body>
</html>
""")


def page(*, title: str, body: str, style: str = "", script: str) -> str:
    """A page that needs nothing else. ``title`` and ``body`` are HTML; ``style`` and ``script`` follow the common."""
    return _PAGE.substitute(title=title, body=body, style=STYLE + style, script=SORT + script)

"""The HTML page around a table: light and dark, and sortable by clicking a column's header."""

from string import Template

PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>$title</title>
<style>
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
button::after { content: " ↕"; color: var(--soft); opacity: .5; }
[aria-sort=ascending] button::after { content: " ↑"; opacity: 1; }
[aria-sort=descending] button::after { content: " ↓"; opacity: 1; }
ul { margin: 1.25rem 0 0; padding-left: 1.1rem; color: var(--soft); font-size: .85rem; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<div class="scroll">
<table>
<thead><tr>$header</tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>
<ul>
$notes
</ul>
</main>
<script>
const none = "\\u2013", body = document.querySelector("tbody"), heads = [...document.querySelectorAll("th")];
const text = (row, i) => row.cells[i].textContent;
const number = cell => parseFloat(cell.replace("[", ""));
heads.forEach((head, i) => head.addEventListener("click", () => {
  const rows = [...body.rows], numeric = rows.every(row => text(row, i) === none || !isNaN(number(text(row, i))));
  const down = head.ariaSort ? head.ariaSort === "ascending" : numeric && i > 0;
  heads.forEach(other => other.removeAttribute("aria-sort"));
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  rows.sort((a, b) => {
    const [x, y] = [text(a, i), text(b, i)];
    if ((x === none) !== (y === none)) return x === none ? 1 : -1;
    const order = numeric ? number(x) - number(y) || 0 : x.localeCompare(y, "en", { numeric: true });
    return down ? -order : order;
  });
  body.append(...rows);
}));
</script>
</body>
</html>
""")

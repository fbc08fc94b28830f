const NONE = "\u2013", NUMBER = /^\[?([+\-\u2212]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?![\w.:-])/;

// Makes a table sort by a clicked header; then calls sorted(column, direction). Returns the function that sorts by
// column i; a column that does not exist restores the original order.
function sortable(table, sorted = () => {}) {
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
    sorted(i, head.getAttribute("aria-sort"));
  }));
  return sort;
}

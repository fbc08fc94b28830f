// The address holds the whole state: #PLACE?sort=COLUMN&order=descending&filter=WORDS&budget=NAME&compare=ID. A place is
// the id of a page, board or figure, or run/ID. Links, back and forward therefore also work when the page is a file.

const data = JSON.parse(document.getElementById("data").textContent);
const byId = id => document.getElementById(id), records = new Map(data.records.map(record => [record.id, record]));
const pages = [...document.querySelectorAll(".page")], filter = byId("filter"), budget = byId("budget");
const sorts = new Map([...document.querySelectorAll(".page table")].map(table =>
  [table, sortable(table, (column, direction) => {
    const query = address().query;
    query.set("sort", column);
    query.set("order", direction);
    go(table.closest("article").id || table.closest(".page").id, query);
  })]));
let follow = true;  // scroll to the next address: after a click on a link, not after sorting or going back

const maker = space => (tag, attributes, ...children) => {
  const node = document.createElementNS(space, tag);
  Object.entries(attributes).forEach(([name, value]) => node.setAttribute(name, value));
  node.append(...children);
  return node;
};
const h = maker("http://www.w3.org/1999/xhtml"), s = maker("http://www.w3.org/2000/svg");

function address() {
  const [path, query] = location.hash.slice(1).split("?", 2);
  try { return { place: decodeURIComponent(path), query: new URLSearchParams(query) }; }
  catch { return { place: "", query: new URLSearchParams() }; }
}

function go(place, query, replace = false) {
  const hash = `#${encodeURIComponent(place)}${String(query) && "?" + query}`;
  if (replace) location.replace(hash); else location.hash = hash;
}

function show() {
  const { place, query } = address(), id = place.startsWith("run/") ? place.slice(4) : null;
  const found = id === null ? byId(place) : byId("run"), page = found?.closest(".page") ?? pages[0];
  const target = page.contains(found) ? found : page;
  for (let box = target.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
  if (id !== null) page.replaceChildren(...run(id));
  pages.forEach(other => { other.hidden = other !== page; });
  document.querySelectorAll("header nav a").forEach(link =>
    link.setAttribute("aria-current", link.hash === `#${page.id === "run" ? "runs" : page.id}` ? "page" : "false"));
  for (const [table, sort] of sorts) {
    const own = target.contains(table) && query.has("sort"), order = query.get("order");
    if (page.contains(table)) sort(own ? Number(query.get("sort")) : -1, order ? order === "descending" : undefined);
  }
  choose(page, query);
  if (page.id === "runs") showComparison(query.getAll("compare").filter(id => records.has(id)));
  byId("selected").hidden = page.id !== "runs" || !query.has("compare");
  const heading = target.querySelector("h2, h3");
  document.title = `${(id === null ? heading?.textContent : records.get(id)?.method) ?? "run"} \u2013 dkl`;
  if (follow) {
    (target === page ? document.body : target.closest("details") ?? target).scrollIntoView();
    page.querySelector("h2").focus({ preventScroll: true });
  }
  follow = false;
}

// Hides the rows of a page that lack a word of the filter or are of another budget, and boards left without rows. Folded
// boards with such rows are opened.
function choose(page, query) {
  const typed = query.get("filter") ?? "", only = query.get("budget") ?? "";
  const words = typed.toLowerCase().split(/\s+/).filter(Boolean);
  if (filter.value !== typed) filter.value = typed;
  budget.value = only;
  const boards = [...page.querySelectorAll("article")], count = [0, 0];
  byId("choose").hidden = !boards.length;
  for (const board of boards) {
    const column = [...board.querySelectorAll("th")].findIndex(head => head.textContent === "Budget");
    const title = board.querySelector("h3")?.textContent ?? "", rows = [...board.querySelectorAll("tbody tr")];
    for (const row of rows) {
      const text = `${title} ${row.textContent}`.toLowerCase();
      const size = board.dataset.budget || row.cells[column]?.textContent;
      row.hidden = !(words.every(word => text.includes(word)) && (!only || size === only));
      count[row.hidden ? 1 : 0] += 1;
    }
    board.hidden = rows.length > 0 && rows.every(row => row.hidden);
    const curves = board.querySelector(".curves");
    if (curves) drawRows(curves, rows.filter(row => !row.hidden));
  }
  const filtered = words.length > 0 || only !== "";
  for (const box of page.querySelectorAll("details:has(article)")) {
    box.hidden = [...box.querySelectorAll("article")].every(board => board.hidden);
    box.open ||= filtered && !box.hidden;
  }
  byId("count").textContent = filtered ? `${count[0]} of ${count[0] + count[1]} rows` : "";
  byId("nothing").hidden = !filtered || count[0] > 0 || byId("choose").hidden;
}

// Draws the curves of the first of a board's visible rows.
function drawRows(place, rows) {
  const links = rows.map(row => row.querySelector('a[href^="#run/"]')).filter(Boolean);
  const ids = links.map(link => decodeURIComponent(link.hash.slice("#run/".length))).slice(0, MOST_LINES);
  if (place.dataset.drawn === JSON.stringify(ids)) return;
  place.dataset.drawn = JSON.stringify(ids);
  const link = h("a", { href: `#runs?${new URLSearchParams(ids.map(id => ["compare", id]))}` }, "Compare these runs");
  place.replaceChildren(...curvesOf(ids, HEADLINES), ...(ids.length > 1 ? [h("p", {}, link)] : []));
}

// The view of one record.
function run(id) {
  const record = records.get(id);
  if (!record) return [h("h2", { tabindex: -1 }, "Run not found"), h("p", {}, `This page has no record ${id}.`)];
  const { training, curves } = data.runs[record.run];
  const others = data.records.filter(other => other.row === record.row && other !== record);
  const links = others.map(other => h("li", {}, h("a", { href: `#run/${encodeURIComponent(other.id)}` }, other.label)));
  return [
    h("h2", { tabindex: -1 }, record.method),
    h("p", record.result ? {} : { class: "warning" }, record.budget),
    ...record.warnings.map(text => h("p", { class: "warning" }, `Warning: ${text}`)),
    accuracies(record),
    list(Object.entries(record.facts)),
    h("h3", {}, "Training curves"), ...charts(curves, record.color),
    ...(links.length ? [h("h3", {}, "Other evaluations of this row"), h("ul", {}, ...links)] : []),
    h("h3", {}, "Configuration and provenance"),
    details("Training configuration", [...leaves(training)]),
    details("Provenance", [...leaves(record.provenance)], { open: "" }),
  ];
}

const list = pairs => h("dl", {}, ...pairs.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));

const details = (title, pairs, open = {}) => h("details", { class: "plain", ...open }, h("summary", {}, title),
  pairs.length ? list(pairs) : h("p", {}, "Not available: these weights were trained elsewhere."));

function* leaves(value, path = "") {
  const inner = value !== null && typeof value === "object" && !Array.isArray(value);
  if (!inner) yield [path, typeof value === "string" ? value : JSON.stringify(value)];
  else for (const [key, part] of Object.entries(value)) yield* leaves(part, path ? `${path}.${key}` : key);
}

function accuracies(record) {
  const heads = [["l", ""], ["r", "Accuracy (%)"], ["r", "95 % interval"], ["l", "0 to 100 %"], ["r", "Seconds"]];
  const rows = record.accuracies.map(({ name, percent, interval, text, seconds }) => h("tr", {},
    h("th", { scope: "row", class: "l" }, name), h("td", { class: "r" }, percent.toFixed(2)),
    h("td", { class: "r" }, text ?? NONE), h("td", { class: "l" }, bar(percent, interval ?? [percent, percent])),
    h("td", { class: "r" }, seconds?.toFixed(1) ?? NONE)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Accuracies" }, h("table", {},
    h("thead", {}, h("tr", {}, ...heads.map(([side, text]) => h("th", { scope: "col", class: side }, text)))),
    h("tbody", {}, ...rows)));
}

const bar = (percent, [low, high]) => s("svg", { class: "bar", viewBox: "0 0 100 10", preserveAspectRatio: "none",
  "aria-hidden": true },
  s("rect", { width: 100, height: 10, class: "track" }), s("rect", { width: percent, height: 10, class: "value" }),
  s("path", { d: `M${low} 5H${high}M${low} 2.5V7.5M${high} 2.5V7.5`, class: "whisker" }));

// The views of the selected runs, above the list of runs. The boxes that select them are in that list.
const boxes = [...document.querySelectorAll("#runs tbody a")].map(link => {
  const id = decodeURIComponent(link.hash.slice("#run/".length));
  const box = h("input", { type: "checkbox", value: id, "aria-label": `Compare ${records.get(id).short}` });
  box.addEventListener("change", () => select(boxes.filter(({ checked }) => checked).map(({ value }) => value).slice(0, MOST_LINES)));
  link.before(box, " ");
  return box;
});

function select(ids) {
  const { query } = address();
  query.delete("compare");
  ids.forEach(id => query.append("compare", id));
  go("runs", query, true);
}

function showComparison(ids) {
  for (const box of boxes) {
    box.checked = ids.includes(box.value);
    box.disabled = !box.checked && ids.length >= MOST_LINES;
  }
  byId("selected").textContent = `${ids.length} selected`;
  const clear = h("button", { type: "button" }, "Clear the selection");
  clear.addEventListener("click", () => select([]));
  byId("compare").replaceChildren(...(ids.length ? [h("h3", {}, "Comparison"), ...comparison(ids), clear] : []));
}

// Boards of entries: a choice per column hides rows of the table and their dots in the drawing.
for (const drawing of document.querySelectorAll(".scatter")) {
  const table = byId(drawing.dataset.board).querySelector("table"), rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells].map(head => head.textContent);
  const parts = rows.map((_, i) => [...drawing.querySelectorAll("[id]")].filter(({ id }) =>
    id === `${drawing.dataset.board}-row-${i}` || id.startsWith(`${drawing.dataset.board}-row-${i}-`)));
  parts.forEach(([dot], i) => dot?.append(s("title", {}, [...rows[i].cells].map(cell => cell.innerText).join(", "))));
  const choices = ["Architecture", "Extra data", "Status", "Source"].map(name => {
    const values = rows.map(row => row.cells[heads.indexOf(name)].textContent.split(",")[0].trim());
    const options = [...new Set(values)].sort((a, b) => a.localeCompare(b, "en", { numeric: true }));
    const box = h("select", {}, h("option", { value: "" }, "all"), ...options.map(value => h("option", {}, value)));
    drawing.querySelector(".choose").append(h("label", {}, `${name} `, box));
    return { box, values };
  });
  const apply = () => rows.forEach((row, i) => {
    const out = choices.some(({ box, values }) => box.value && box.value !== values[i]);
    row.classList.toggle("out", out);
    parts[i].forEach(part => part.classList.toggle("out", out));
  });
  choices.forEach(({ box }) => box.addEventListener("change", apply));
}

const chosen = replace => {
  const { place, query } = address();
  for (const { id, value } of [filter, budget]) if (value) query.set(id, value); else query.delete(id);
  go(place || pages[0].id, query, replace);
};
filter.addEventListener("input", () => chosen(true));
budget.addEventListener("change", () => chosen(false));
byId("clear").addEventListener("click", () => {
  filter.value = budget.value = "";
  chosen(false);
  filter.focus();
});
byId("selected").addEventListener("click", () => byId("runs").scrollIntoView());
addEventListener("click", event => {
  const link = event.target.closest("a");
  follow = link !== null && link.hash !== location.hash;
});
addEventListener("hashchange", show);
show();

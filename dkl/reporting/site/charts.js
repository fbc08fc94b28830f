// Line charts of training curves, of one run or several. A method has its color on all pages and figures; dashes tell
// apart lines of one color.

const DASHES = ["none", "7 3", "2 2", "9 3 2 3", "14 4", "1 4"], MOST_LINES = 6;

// The most important curves of a board: per list, the first metric that is there.
const HEADLINES = [["robust_accuracy", "adversarial_accuracy"],
  ["average_test_miou", "test_miou", "average_test_accuracy", "test_accuracy"], ["loss"]];

// The look of each of several records: its method's color, and a dash for each line of that color.
const looksOf = ids => ids.map((id, i) => {
  const { color } = records.get(id), before = ids.slice(0, i).filter(other => records.get(other).color === color);
  return { color, dash: DASHES[before.length] };
});

const metricTitle = name => data.metrics[name] ? `accuracy (%): ${data.metrics[name].name}` : name.replaceAll("_", " ");

const measured = curves => Object.keys(curves).filter(name => name !== "epoch" && curves[name].some(v => v !== null));

const pointsOf = (curves, name) => (curves[name] ?? []).flatMap((value, i) =>
  value === null ? [] : [[curves.epoch[i], (data.metrics[name] ? 100 : 1) * value]]);

// Accuracies first, then the loss, then the others.
const inOrder = names => [...Object.keys(data.metrics), "loss", ...names].filter((name, i, all) =>
  names.includes(name) && all.indexOf(name) === i);

// The charts of one run: all accuracies in one, every other metric in its own, in the color of the run's method.
function charts(curves, color) {
  const names = inOrder(measured(curves)), drawn = names.filter(name => data.metrics[name]);
  if (!names.length) return [h("p", {}, "No curves were saved with this record.")];
  const series = name => ({ name: name.replaceAll("_", " "), color, dash: "none", ...data.metrics[name],
    points: pointsOf(curves, name) });
  return [h("div", { class: "charts" },
    ...(drawn.length ? [chart("accuracy (%)", drawn.map(series), true)] : []),
    ...names.filter(name => !data.metrics[name]).map(name => chart(metricTitle(name), [series(name)])))];
}

// One chart per metric of several records, and one key for all of them. Evaluations of one run share a line.
function curvesOf(ids, wanted = null) {
  const looks = looksOf(ids), runs = ids.map((id, i) => ({ ...records.get(id), ...looks[i] })).filter((record, i, all) =>
    measured(data.runs[record.run].curves).length && all.findIndex(({ run }) => run === record.run) === i);
  const curves = runs.map(({ run }) => data.runs[run].curves), names = inOrder([...new Set(curves.flatMap(measured))]);
  const shown = wanted ? wanted.flatMap(list => list.find(name => names.includes(name)) ?? []) : names;
  const series = name => runs.map(({ short, color, dash }, i) => ({ name: short, color, dash,
    points: pointsOf(curves[i], name) })).filter(({ points }) => points.length);
  return shown.length ? [legend(runs.map(({ short, color, dash }) => ({ name: short, color, dash }))),
    h("div", { class: "charts" }, ...shown.map(name => chart(metricTitle(name), series(name))))] : [];
}

// Results and curves of several records, and a table of what differs between them.
function comparison(ids) {
  const found = ids.map(id => records.get(id));
  const described = found.map(record => new Map([...Object.entries(record.facts), ["Budget", record.budget],
    ...leaves(data.runs[record.run].training)]));
  const names = [...new Set(described.flatMap(facts => [...facts.keys()]))].filter(name =>
    new Set(described.map(facts => facts.get(name))).size > 1);
  const accuracy = (record, name) => record.accuracies.find(one => one.name === name);
  const results = [...new Set(found.flatMap(({ accuracies }) => accuracies.map(({ name }) => name)))].filter(name =>
    ["Clean", "Mean IoU", "Robust after all attacks"].includes(name)).reverse();
  const cell = one => one ? [`${one.percent.toFixed(2)} ${one.text ?? ""}`, bar(one.percent, one.interval ?? [0, 0])] : [NONE];
  const row = (name, cells) => h("tr", {}, h("th", { scope: "row", class: "l" }, name),
    ...cells.map(parts => h("td", { class: "l" }, ...parts)));
  const looks = looksOf(ids);
  return [
    h("div", { class: "scroll different", tabindex: 0, role: "region", "aria-label": "What differs" }, h("table", {},
      h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "l" }, "What differs"), ...found.map((record, i) =>
        h("th", { scope: "col", class: "l" }, swatch(looks[i]),
          h("a", { href: `#run/${encodeURIComponent(record.id)}` }, record.short))))),
      h("tbody", {},
        ...results.map(name => row(`${name} (%)`, found.map(record => cell(accuracy(record, name))))),
        ...names.map(name => row(name, described.map(facts => [facts.get(name) ?? NONE])))))),
    ...curvesOf(ids),
  ];
}

// About five round numbers from low to high; whole ones on an axis of epochs.
function ticks(low, high, whole = false) {
  const rough = (high - low) / 5 || Math.abs(high) || 1, ten = 10 ** Math.floor(Math.log10(rough));
  const round = ten * [1, 2, 5, 10].find(factor => factor * ten >= rough * 0.999);
  const step = whole ? Math.max(1, round) : round;
  const first = Math.floor(low / step + 1e-9), last = Math.max(first + 1, Math.ceil(high / step - 1e-9));
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(6)));
}

const swatch = ({ color, dash }) => h("span", { class: "key" }, s("svg", { viewBox: "0 0 36 8", "aria-hidden": true },
  s("path", { d: "M0 4H36", stroke: color, "stroke-width": 2, "stroke-dasharray": dash })));

const legend = series => h("ul", { class: "key" }, ...series.map(one => h("li", {}, ...swatch(one).childNodes, one.name)));

// A chart of series by epoch: each has a name, points, a color and a dash.
function chart(title, series, keyed = false) {
  const points = series.flatMap(({ points }) => points), [xs, ys] = [0, 1].map(i => points.map(point => point[i]));
  const span = (values, whole) => ticks(Math.min(...values), Math.max(...values), whole);
  const [across, up] = [span(xs, true), span(ys)];
  const x = value => 44 + 350 * (value - across[0]) / (across.at(-1) - across[0]);
  const y = value => 190 - 180 * (value - up[0]) / (up.at(-1) - up[0]);
  const text = (value, attributes) => s("text", attributes, String(value));
  const lines = series.map(({ color, dash, points }) => s("g", { stroke: color, fill: color },
    s("polyline", { points: points.map(p => `${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join(" "), fill: "none",
      "stroke-dasharray": dash }),
    ...points.map(([epoch, value]) => s("circle", { cx: x(epoch), cy: y(value), r: 3 }))));
  const drawing = s("svg", { viewBox: "0 0 400 226", role: "img", "aria-label": `${title} by epoch` },
    ...up.map(value => s("path", { class: "grid", d: `M44 ${y(value)}H394` })),
    ...up.map(value => text(value, { x: 38, y: y(value) + 4, "text-anchor": "end" })),
    ...across.map(value => text(value, { x: x(value), y: 206, "text-anchor": "middle" })),
    text("epoch", { x: 219, y: 223, "text-anchor": "middle" }), ...lines);
  const place = h("div", { class: "plot" }, drawing);
  withTip(place, series, [...new Set(xs)].sort((a, b) => a - b), x);
  return h("figure", {}, h("figcaption", {}, title), place, ...(keyed ? [legend(series)] : []));
}

// Shows the values of all series at the epoch next to the pointer, beside a line through that epoch.
function withTip(place, series, epochs, x) {
  const line = s("path", { class: "grid" }), tip = h("div", { class: "tip", hidden: "" });
  place.firstChild.append(line);
  place.append(tip);
  const hide = () => { tip.hidden = true; line.removeAttribute("d"); };
  const point = event => {
    const { left, width } = place.getBoundingClientRect(), at = 400 * (event.clientX - left) / width;
    const epoch = epochs.reduce((best, one) => Math.abs(x(one) - at) < Math.abs(x(best) - at) ? one : best, epochs[0]);
    const here = series.flatMap(one => one.points.filter(p => p[0] === epoch).map(p => ({ ...one, value: p[1] })));
    const shown = here.sort((a, b) => b.value - a.value).map(one =>
      ({ ...one, name: `${Number(one.value.toPrecision(5))} ${one.name}` }));
    tip.replaceChildren(h("strong", {}, `Epoch ${epoch}`), legend(shown));
    tip.hidden = false;
    tip.style.cssText = at < 200 ? `left: ${x(epoch) / 4 + 2}%` : `right: ${102 - x(epoch) / 4}%`;
    line.setAttribute("d", `M${x(epoch)} 10V190`);
  };
  for (const kind of ["pointermove", "pointerdown"]) place.addEventListener(kind, point);
  place.addEventListener("pointerleave", hide);
}


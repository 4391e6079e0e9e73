"use strict";
// sorting of the full tables
for (const header of document.querySelectorAll("th button")) header.addEventListener("click", () => {
  const th = header.parentElement, table = th.closest("table"), column = th.cellIndex;
  const up = th.getAttribute("aria-sort") !== "ascending";
  for (const other of table.querySelectorAll("th")) other.removeAttribute("aria-sort");
  th.setAttribute("aria-sort", up ? "ascending" : "descending");
  const key = row => { const cell = row.cells[column], v = cell.dataset.v;
    return v === undefined ? cell.textContent : v === "" ? NaN : Number(v); };
  const rows = [...table.tBodies[0].rows].map(row => [key(row), row]);
  rows.sort(([a], [b]) => {
    if (typeof a === "number" && typeof b === "number") {
      if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
      return up ? a - b : b - a;
    }
    return up ? String(a).localeCompare(String(b)) : String(b).localeCompare(String(a));
  });
  table.tBodies[0].append(...rows.map(([, row]) => row));
});
const copy = (button, text) => button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(text());
  button.textContent = "copied";
});
for (const button of document.querySelectorAll("button.copy")) copy(button, () => button.previousElementSibling.textContent);

// runs: hover, keys and brushing
const UNITS = 2000, NEAR = 14, SVG = "http://www.w3.org/2000/svg";
const runs = JSON.parse(document.getElementById("runs").textContent);
const tip = document.getElementById("tip"), bar = document.getElementById("marked");
let marked = new Set();

const unpack = text => text.split(" ").flatMap(part => {
  const [first, last = first] = part.split("-").map(Number);
  return Array.from({length: last - first + 1}, (_, i) => first + i);
});
const plots = [...document.querySelectorAll(".plot")].filter(box => box.querySelector("[data-runs]")).map(box => {
  const plot = {box, area: box.querySelector(".area"), isThreads: box.closest("figure").id === "threads", at: -1};
  plot.find = () => plot.dots ??= [...plot.area.querySelectorAll("[data-runs]")].flatMap(path => {
    const places = path.getAttribute("d").match(/-?\d+/g).map(Number);
    return unpack(path.dataset.runs).map((run, i) => ({run, x: places[3 * i], y: places[3 * i + 1]}));
  });
  return plot;
});
const describe = run => {
  const point = runs.points[runs.point[run]], values = runs.metrics.map((name, k) => {
    const value = runs.values[k][run];
    return `${name} ${value === null ? "none" : value}`;
  });
  const seed = runs.seed[run] < 0 ? "" : ` seed=${runs.seed[run]}`;
  return {title: point + seed, values: values.join(", "), command: `${runs.commands[runs.study[run]]} --run ${runs.number[run]}`};
};
const add = (parent, tag, text) => { const made = document.createElement(tag); made.textContent = text; parent.append(made); return made; };
const tell = (run, x, y) => {
  tip.replaceChildren();
  if (run === null) return;
  const found = describe(run);
  add(tip, "b", found.title); add(tip, "div", found.values); add(tip, "code", found.command);
  const box = tip.getBoundingClientRect();
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - box.width - 4))}px`;
  tip.style.top = `${y + 18 + box.height > innerHeight ? Math.max(4, y - box.height - 14) : y + 18}px`;
};
const overlay = (plot, name, d) => {
  let path = plot.area.querySelector(`.${name}`);
  if (!path) { path = document.createElementNS(SVG, "path"); path.setAttribute("class", name); plot.area.append(path); }
  path.setAttribute("d", d);
};
const place = dots => dots.map(dot => `M${dot.x},${dot.y}h0`).join("");
const thread = dots => {
  const lines = new Map();
  for (const dot of dots) lines.set(dot.run, [...(lines.get(dot.run) ?? []), `${dot.x},${dot.y}`]);
  return [...lines.values()].map(places => `M${places.join(" ")}`).join("");
};
const show = () => {
  for (const plot of plots) {
    const own = marked.size ? plot.find().filter(dot => marked.has(dot.run)) : [];
    overlay(plot, "marked", place(own));
    if (plot.isThreads) overlay(plot, "thread", thread(own));
  }
  bar.hidden = marked.size === 0;
  bar.replaceChildren();
  if (!marked.size) return;
  const kept = [...marked].sort((a, b) => a - b);
  const means = runs.metrics.map((name, k) => {
    const values = kept.map(run => runs.values[k][run]).filter(value => value !== null);
    const mean = values.reduce((a, b) => a + b, 0) / values.length;
    return `${name}: ${values.length ? "mean " + Number(mean.toPrecision(5)) : "no value"}`;
  });
  const count = runs.point.length.toLocaleString("en");
  add(bar, "b", `${kept.length.toLocaleString("en")} of ${count} runs marked; ${means.join("; ")}`);
  for (const run of kept.slice(0, 3)) {
    const found = describe(run), line = add(bar, "div", `${found.title}: `);
    add(line, "code", found.command);
    line.append(" ");
    copy(add(line, "button", "copy"), () => found.command);
  }
  if (kept.length > 3) add(bar, "div", `… and ${(kept.length - 3).toLocaleString("en")} more`);
  add(bar, "button", "clear").addEventListener("click", () => mark(new Set()));
};
const mark = set => { marked = set; show(); };
const nearest = (plot, event) => {
  const box = plot.area.getBoundingClientRect();
  let best = null, least = NEAR * NEAR;
  for (const dot of plot.find()) {
    const dx = box.left + dot.x / UNITS * box.width - event.clientX, dy = box.top + dot.y / UNITS * box.height - event.clientY;
    if (dx * dx + dy * dy < least) { least = dx * dx + dy * dy; best = dot; }
  }
  return best;
};
for (const plot of plots) {
  let start = null;
  const units = event => {
    const box = plot.area.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width * UNITS, (event.clientY - box.top) / box.height * UNITS];
  };
  plot.box.addEventListener("pointerdown", event => { if (event.button === 0) start = [event.clientX, event.clientY, ...units(event)]; });
  plot.box.addEventListener("pointermove", event => {
    if (start && Math.hypot(event.clientX - start[0], event.clientY - start[1]) > 5) {
      if (!plot.rect) { plot.box.setPointerCapture(event.pointerId); plot.rect = document.createElementNS(SVG, "rect");
        plot.rect.setAttribute("class", "brush"); plot.area.append(plot.rect); tell(null); }
      const [x, y] = units(event);
      for (const [name, value] of [["x", Math.min(x, start[2])], ["y", Math.min(y, start[3])],
        ["width", Math.abs(x - start[2])], ["height", Math.abs(y - start[3])]]) plot.rect.setAttribute(name, value);
      return;
    }
    const dot = nearest(plot, event);
    overlay(plot, "found", dot ? place([dot]) : "");
    tell(dot && dot.run, event.clientX, event.clientY);
  });
  plot.box.addEventListener("pointerup", event => {
    if (!start) return;
    if (plot.rect) {
      const [x, y] = units(event), [left, right] = [x, start[2]].sort((a, b) => a - b), [up, down] = [y, start[3]].sort((a, b) => a - b);
      mark(new Set(plot.find().filter(d => left <= d.x && d.x <= right && up <= d.y && d.y <= down).map(d => d.run)));
    } else {
      const dot = nearest(plot, event);
      mark(dot && !(marked.size === 1 && marked.has(dot.run)) ? new Set([dot.run]) : new Set());
    }
    start = null; plot.rect?.remove(); plot.rect = null;
  });
  plot.box.addEventListener("pointercancel", () => { start = null; plot.rect?.remove(); plot.rect = null; });
  plot.box.addEventListener("pointerleave", () => { if (!start) { tell(null); overlay(plot, "found", ""); } });
  plot.box.addEventListener("blur", () => { tell(null); overlay(plot, "found", ""); });
  plot.box.addEventListener("keydown", event => {
    const step = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    plot.sorted ??= [...plot.find()].sort((a, b) => a.x - b.x || b.y - a.y);
    if (step) plot.at = (plot.at + step + plot.sorted.length) % plot.sorted.length;
    else if ((event.key === "Enter" || event.key === " ") && plot.at >= 0) mark(new Set([...marked, plot.sorted[plot.at].run]));
    else if (event.key === "Escape") mark(new Set());
    else return;
    event.preventDefault();
    if (plot.at < 0) return;
    const dot = plot.sorted[plot.at], box = plot.area.getBoundingClientRect();
    overlay(plot, "found", place([dot]));
    tell(dot.run, box.left + dot.x / UNITS * box.width, box.top + dot.y / UNITS * box.height);
  });
}

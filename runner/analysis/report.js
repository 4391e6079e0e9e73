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
for (const button of document.querySelectorAll("button.copy")) button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(button.nextElementSibling.textContent);
  button.textContent = "copied";
});
const holder = document.getElementById("parallel");
if (holder) {
  const data = JSON.parse(document.getElementById("parallel-data").textContent);
  const told = document.getElementById("brushed");
  Plotly.newPlot(holder, data.data, data.layout, {displaylogo: false, responsive: true});
  const tell = () => {
    const dimensions = holder.data[0].dimensions, count = dimensions[0].values.length;
    const inside = (value, range) => range === undefined ||
      (Array.isArray(range[0]) ? range : [range]).some(([low, high]) => low <= value && value <= high);
    let kept = [];
    for (let i = 0; i < count; i++) if (dimensions.every(d => inside(d.values[i], d.constraintrange))) kept.push(i);
    const means = dimensions.filter((d, k) => data.metrics.includes(k)).map(d => {
      const values = kept.map(i => d.values[i]).filter(Number.isFinite);
      const mean = values.reduce((a, b) => a + b, 0) / values.length;
      const label = new DOMParser().parseFromString(d.label, "text/html").body.textContent;
      return label + ": mean " + mean.toPrecision(5);
    });
    const runs = kept.length.toLocaleString("en") + " of " + count.toLocaleString("en") + " runs";
    told.textContent = [runs, ...means].join("; ");
  };
  holder.on("plotly_restyle", tell);
  tell();
}

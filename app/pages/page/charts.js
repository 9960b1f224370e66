// Small charts of the last hour, drawn as SVG; each has its content as text for those who do not see it.

import { byId, setText } from "./dom.js";
import { count, duration, rate } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const WIDTH = 300;
const HEIGHT = 90;
const SHORTEST_SECONDS = 120; // what the width stands for at least, so that the first samples do not fill it
const CHARTS = [
  { name: "received", title: "Received", unit: "messages/s", column: 1, format: rate },
  { name: "delivered", title: "Delivered", unit: "messages/s", column: 2, format: rate },
  { name: "waiting", title: "Waiting", unit: "messages", column: 3, format: count },
];

export function showHistory({ samples }) {
  for (const chart of CHARTS) {
    chart.parts ??= newChart(chart);
    draw(chart, samples);
  }
}

function newChart({ name, title }) {
  const figure = document.createElement("figure");
  figure.className = "chart";
  const caption = figure.appendChild(document.createElement("figcaption"));
  caption.appendChild(document.createElement("span")).textContent = title;
  const now = caption.appendChild(document.createElement("strong"));
  const svg = figure.appendChild(document.createElementNS(SVG, "svg"));
  svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("class", name);
  const area = svg.appendChild(document.createElementNS(SVG, "path"));
  area.setAttribute("class", "area");
  const line = svg.appendChild(document.createElementNS(SVG, "path"));
  const axis = figure.appendChild(document.createElement("div"));
  axis.className = "axis";
  axis.setAttribute("aria-hidden", "true"); // the label of the chart says the same
  const from = axis.appendChild(document.createElement("span"));
  const most = axis.appendChild(document.createElement("span"));
  axis.appendChild(document.createElement("span")).textContent = "now";
  byId("charts").appendChild(figure);
  return { svg, area, line, now, from, most };
}

function draw({ title, unit, column, format, parts }, samples) {
  const values = samples.map((sample) => sample[column]);
  const last = values.at(-1) ?? 0;
  const most = Math.max(0, ...values);
  const until = samples.at(-1)?.[0] ?? 0;
  const span = Math.max(SHORTEST_SECONDS, until - (samples[0]?.[0] ?? 0));
  const points = samples.map(([at], place) => {
    const x = WIDTH * (1 - (until - at) / span);
    const y = HEIGHT - 2 - (HEIGHT - 6) * (most ? values[place] / most : 0);
    return `${x.toFixed(1)} ${y.toFixed(1)}`;
  });
  const path = points.length ? `M${points.join("L")}` : "";
  parts.line.setAttribute("d", path);
  parts.area.setAttribute("d", path && `${path}L${WIDTH} ${HEIGHT}L${points[0].split(" ")[0]} ${HEIGHT}Z`);
  setText(parts.now, `${format(last)} ${unit}`);
  setText(parts.from, `${duration(span)} ago`);
  setText(parts.most, `at most ${format(most)}`);
  const least = values.length ? Math.min(...values) : 0;
  const text = `${title}: ${format(last)} ${unit} now, from ${format(least)} to ${format(most)} in the last ${duration(span)}`;
  if (parts.svg.getAttribute("aria-label") !== text) parts.svg.setAttribute("aria-label", text);
}

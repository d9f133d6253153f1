// Curves of runs: uPlot in the lab's colours, with a line's camp as its colour and its dash telling neighbours apart.

import { amount, colour, durations, el } from "./dom.js";
import uPlot from "./vendor/uPlot.js";

const CAMP_COLOURS = { JEPA: ["blue", "sky", "green"], generative: ["vermillion", "orange", "purple"], other: ["grey", "ink"] };
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];
const HOURS = [0.25, 0.5, 1, 2, 3, 6, 12, 24, 48, 120, 240, 480, 1200, 2400, 4800].map((hours) => 3600 * hours);
const TIME_STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 60, 120, 300, 600, ...HOURS]; // between ticks, in seconds
const plots = new WeakMap(); // place: { plot, key, along, zoom }

/** A look for each line: colours by camp, then dashes, so that no two lines of a chart are alike for long. */
export function looks(lines) {
  const counts = {};
  return lines.map(({ camp }) => {
    const shades = CAMP_COLOURS[camp] ?? CAMP_COLOURS.other;
    const i = (counts[camp] = (counts[camp] ?? -1) + 1);
    return { shade: shades[i % shades.length], dash: DASHES[Math.floor(i / shades.length) % DASHES.length] };
  });
}

/** A swatch for keys; draw it with `drawSwatch`. */
export const swatch = () => el("canvas.swatch", { width: 52, height: 12, "aria-hidden": "true" });

/** Draws a line's look onto its swatch. */
export function drawSwatch(canvas, look) {
  const pen = canvas.getContext("2d");
  pen.clearRect(0, 0, canvas.width, canvas.height);
  pen.strokeStyle = colour(look.shade);
  pen.lineWidth = 4;
  pen.setLineDash(look.dash.map((length) => 2 * length));
  pen.beginPath();
  pen.moveTo(0, 6);
  pen.lineTo(52, 6);
  pen.stroke();
}

/** Draws lines [{ name, camp, points: [[x, y], ...] }] into a place. New points of the same lines go into the plot that
 *  is there, which keeps the reader's zoom; other lines, labels, scales or colours make another plot.
 *  axes: { x: label, y: label, log: whether y is logarithmic, seconds: whether x is a duration }. */
export function drawCurves(place, lines, axes, { height = 320 } = {}) {
  const all = looks(lines);
  const shown = lines.map((line, i) => ({ ...line, look: all[i] })).filter((line) => line.points.length);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", describe(shown, axes));
  if (!shown.length) {
    clearCurves(place);
    place.append(el("p.empty", {}, "Nothing has been recorded yet."));
    return;
  }
  const shades = shown.map(({ name, look }) => [name, look, colour(look.shade)]);
  const key = JSON.stringify([axes, height, colour("muted"), shades]);
  const data = uPlot.join(shown.map(({ points }) => [points.map(([x]) => x), points.map((at) => positive(at[1], axes.log))]));
  const width = Math.max(260, place.clientWidth), kept = plots.get(place);
  if (kept?.key !== key) return begin(place, shown, axes, { data, width, height, key });
  kept.plot.batch(() => {
    if (kept.plot.width !== width) kept.plot.setSize({ width, height });
    kept.plot.setData(data);
    if (kept.zoom) kept.plot.setScale("x", kept.zoom);
  });
}

/** Takes a plot out of its place, with its listeners. */
export function clearCurves(place) {
  plots.get(place)?.plot.destroy();
  plots.delete(place);
  place.replaceChildren();
}

/** A new plot; a zoom along the same quantity is taken over from the one before. */
function begin(place, lines, axes, { data, width, height, key }) {
  const before = plots.get(place);
  clearCurves(place);
  const mine = { key, along: axes.x, zoom: before?.along === axes.x ? before.zoom : null };
  const hooks = { setSelect: [(plot) => zoomIn(plot, mine)] };
  mine.plot = new uPlot({ width, height, hooks, ...appearance(lines, axes) }, data, place);
  mine.plot.over.addEventListener("dblclick", () => { mine.zoom = null; });
  if (mine.zoom) mine.plot.setScale("x", mine.zoom);
  plots.set(place, mine);
}

/** Remembers what the reader chose by dragging. */
function zoomIn(plot, kept) {
  const { left, width } = plot.select;
  if (width > 0) kept.zoom = { min: plot.posToVal(left, "x"), max: plot.posToVal(left + width, "x") };
}

function appearance(lines, axes) {
  const ink = colour("muted"), grid = { stroke: colour("grid"), width: 1 };
  const font = "12px system-ui, sans-serif";
  const plain = { stroke: ink, grid, ticks: grid, font, labelFont: font, labelSize: 18 };
  const along = axes.seconds ? { incrs: TIME_STEPS } : {};
  return {
    scales: { x: { time: false }, y: { distr: axes.log ? 3 : 1 } },
    legend: { show: false },
    cursor: { drag: { x: true, y: false } },
    axes: [
      { ...plain, ...along, label: axes.x, size: 34, values: (_, ticks) => alongX(ticks, axes) },
      { ...plain, label: axes.y, size: 56, values: (_, ticks) => ticks.map((v) => (v === null ? "" : amount(v))) },
    ],
    series: [{}, ...lines.map(({ name, look }, i) => ({
      label: name,
      stroke: colour(look.shade),
      width: 1.8,
      dash: look.dash,
      spanGaps: true,
      points: { show: (plot) => count(plot.data[i + 1]) < 3, size: 6, fill: colour(look.shade) },
    }))],
  };
}

const alongX = (values, axes) => (axes.seconds ? durations(values) : values.map((value) => amount(value)));
const count = (values) => values.reduce((number, value) => number + Number.isFinite(value), 0);
const positive = (y, log) => (log && !(y > 0) ? null : y);

function describe(lines, axes) {
  const end = ({ name, points }) => `${name}: ${amount(points.at(-1)[1])} at ${alongX([points.at(-1)[0]], axes)[0]}`;
  const ends = lines.length ? `Last values: ${lines.map(end).join("; ")}.` : "No values yet.";
  return `${axes.y} against ${axes.x}. ${ends}`;
}

// Curves of runs: uPlot in the lab's colours, with a line's camp as its colour and its dash telling neighbours apart.

import { amount, colour, duration, el } from "./dom.js";
import uPlot from "./vendor/uPlot.js";

const CAMP_COLOURS = { JEPA: ["blue", "sky", "green"], generative: ["vermillion", "orange", "purple"], other: ["grey", "ink"] };
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3]];

/** A look for each line: colours by camp, then dashes, so that no two lines of a chart are alike for long. */
export function looks(lines) {
  const counts = {};
  return lines.map(({ camp }) => {
    const shades = CAMP_COLOURS[camp] ?? CAMP_COLOURS.other;
    const i = (counts[camp] = (counts[camp] ?? -1) + 1);
    return { shade: shades[i % shades.length], dash: DASHES[Math.floor(i / shades.length) % DASHES.length] };
  });
}

/** A swatch of a line's look, for keys. */
export function swatch(look) {
  const canvas = el("canvas.swatch", { width: 52, height: 12, "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  pen.strokeStyle = colour(look.shade);
  pen.lineWidth = 4;
  pen.setLineDash(look.dash.map((length) => 2 * length));
  pen.beginPath();
  pen.moveTo(0, 6);
  pen.lineTo(52, 6);
  pen.stroke();
  return canvas;
}

/** Draws lines [{ name, camp, points: [[x, y], ...] }] into a place; what was there before goes.
 *  axes: { x: label, y: label, log: whether y is logarithmic, seconds: whether x is a duration }. */
export function drawCurves(place, lines, axes, { height = 320 } = {}) {
  place.replaceChildren();
  const shown = lines.filter((line) => line.points.length);
  place.setAttribute("role", "img");
  place.setAttribute("aria-label", describe(shown, axes));
  if (!shown.length) {
    place.append(el("p.empty", {}, "Nothing has been recorded yet."));
    return null;
  }
  const all = looks(lines);
  const kept = lines.map((line, i) => ({ ...line, look: all[i] })).filter((line) => line.points.length);
  const data = uPlot.join(kept.map(({ points }) => [points.map(([x]) => x), points.map(([, y]) => positive(y, axes.log))]));
  const ink = colour("muted"), grid = { stroke: colour("grid"), width: 1 };
  const font = "12px system-ui, sans-serif";
  const plain = { stroke: ink, grid, ticks: grid, font, labelFont: font, labelSize: 18 };
  return new uPlot(
    {
      width: Math.max(260, place.clientWidth),
      height,
      scales: { x: { time: false }, y: { distr: axes.log ? 3 : 1 } },
      legend: { show: false },
      cursor: { drag: { x: true, y: false } },
      axes: [
        { ...plain, label: axes.x, size: 34, values: (_, at) => at.map((v) => (axes.seconds ? duration(v) : amount(v))) },
        { ...plain, label: axes.y, size: 56, values: (_, at) => at.map((v) => (v === null ? "" : amount(v))) },
      ],
      series: [
        {},
        ...kept.map((line) => ({
          label: line.name,
          stroke: colour(line.look.shade),
          width: 1.8,
          dash: line.look.dash,
          spanGaps: true,
          points: { show: line.points.length < 3, size: 6, fill: colour(line.look.shade) },
        })),
      ],
    },
    data,
    place,
  );
}

const positive = (y, log) => (log && !(y > 0) ? null : y);

function describe(lines, axes) {
  const ends = lines.map(({ name, points }) => `${name}: ${amount(points.at(-1)[1])} at ${amount(points.at(-1)[0])}`);
  return `${axes.y} against ${axes.x}. ${ends.length ? `Last values: ${ends.join("; ")}.` : "No values yet."}`;
}

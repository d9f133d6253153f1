// Collapse meters of a run, and the plain warning when its embeddings all point one way.

import { amount, colour, el } from "./dom.js";

const WIDTH = 220, HEIGHT = 36;

/** A card: the latest meters, how the spread went, and a warning below the line at which an encoder has collapsed. */
export function meterCard(run, spread, meters, alarm) {
  const hasCollapsed = alarm && meters.std < alarm.std;
  return el("section.card.meter", { "aria-label": `Collapse meters of ${run.name}` },
    el("h3", {}, run.name),
    sparkline(spread, alarm),
    el("dl", {},
      entry("spread (std)", amount(meters.std)),
      entry("RankMe", amount(meters.rankme)),
      entry("RankMe, centred", amount(meters.rankme_centred)),
      entry("mean cosine", amount(meters.mean_cosine))),
    hasCollapsed
      ? el("p.warning.bad", { role: "alert" }, `Collapsing: the embeddings all point one way. ${alarm.advice}`)
      : null);
}

const entry = (name, value) => el("div", {}, el("dt", {}, name), el("dd", {}, value));

function sparkline(points, alarm) {
  const canvas = el("canvas.sparkline", {
    width: 2 * WIDTH, height: 2 * HEIGHT, role: "img",
    "aria-label": `Spread of the embeddings over training, last ${amount(points.at(-1)?.[1])}`,
  });
  if (!points.length) return canvas;
  const pen = canvas.getContext("2d");
  pen.scale(2, 2);
  const last = points.at(-1)[0] || 1, most = Math.max(1, ...points.map(([, y]) => y));
  const place = ([x, y]) => [2 + (x / last) * (WIDTH - 4), HEIGHT - 2 - (y / most) * (HEIGHT - 4)];
  if (alarm) {
    pen.strokeStyle = colour("bad");
    pen.setLineDash([3, 3]);
    pen.beginPath();
    pen.moveTo(...place([0, alarm.std]));
    pen.lineTo(...place([last, alarm.std]));
    pen.stroke();
    pen.setLineDash([]);
  }
  pen.strokeStyle = colour("ink");
  pen.lineWidth = 1.5;
  pen.beginPath();
  points.forEach((point, i) => (i ? pen.lineTo(...place(point)) : pen.moveTo(...place(point))));
  pen.stroke();
  return canvas;
}

// Collapse meters of a run, and the plain warning when its embeddings all point one way.

import { amount, colour, el, setText } from "./dom.js";

const WIDTH = 220, HEIGHT = 36;
const SHOWN = {
  std: "spread (std)", std_samples: "spread over samples", rankme: "RankMe", rankme_centred: "RankMe, centred",
  mean_cosine: "mean cosine",
};

/** A card for `keyed`: the latest meters, how the spread went, and a warning below the line at which an encoder has
 *  collapsed. Its items: { run, spread: [[step, value], ...], meters, alarm }. */
export function meterCard({ run }) {
  const canvas = el("canvas.sparkline", { width: 2 * WIDTH, height: 2 * HEIGHT, role: "img" });
  const values = Object.fromEntries(Object.keys(SHOWN).map((name) => [name, el("dd")]));
  const node = el("section.card.meter", { "aria-label": `Collapse meters of ${run.name}` },
    el("h3", {}, run.name),
    canvas,
    el("dl", {}, Object.entries(SHOWN).map(([name, words]) => el("div", {}, el("dt", {}, words), values[name]))));
  let warning = null, heard = "";
  const update = ({ spread, meters, alarm }) => {
    for (const name of Object.keys(SHOWN)) setText(values[name], amount(meters[name]));
    canvas.setAttribute("aria-label", `Spread of the embeddings over training, last ${amount(spread.at(-1)?.[1])}`);
    sparkline(canvas, spread, alarm);
    const rung = alarm ? Object.keys(alarm.rings).filter((name) => meters[name] < alarm.std) : [];
    const words = rung.map((name) => alarm.rings[name]).join("; ");
    if (words === heard) return;
    heard = words;
    warning?.remove();
    warning = words ? warn(words, alarm.advice) : null;
    if (warning) node.append(warning);
  };
  return { node, update };
}

/** Spoken once, when it enters the page; so it stays for as long as its state lasts. */
const warn = (words, advice) => el("p.warning.bad", { role: "alert" }, `Collapsing: ${words}. ${advice}`);

function sparkline(canvas, points, alarm) {
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  if (!points.length) return;
  pen.scale(2, 2);
  const last = points.at(-1)[0] || 1, most = points.reduce((top, [, y]) => Math.max(top, y), 1);
  const place = ([x, y]) => [2 + (x / last) * (WIDTH - 4), HEIGHT - 2 - (y / most) * (HEIGHT - 4)];
  if (alarm) {
    pen.strokeStyle = colour("bad");
    pen.lineWidth = 1;
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
}

// How a room is drawn: ground and map, goal, start, the way that was gone and the one that is imagined.

import { colour } from "./dom.js";
import { mapPicture, toneOf } from "./plan-map.js";

export const MARGIN = 1; // pixels of the model's picture that are shown around the arena
const DOTS = [0.1, 7];

/** Draws a view on its canvas, `width` CSS pixels wide; returns how many of these are one pixel of the model. */
export function paint(canvas, width, view) {
  const ratio = devicePixelRatio || 1, size = Math.round(width * ratio);
  if (canvas.width !== size) canvas.width = canvas.height = size;
  const [low, high] = view.room.arena, zoom = width / (high - low + 2 * MARGIN);
  const to = (value) => (value - low + MARGIN) * zoom;
  const pen = { context: canvas.getContext("2d"), zoom, to, at: (place) => place.map(to), low, high };
  pen.context.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.context.clearRect(0, 0, width, width);
  paintGround(pen, view);
  if (view.goal) paintGoal(pen, view);
  paintStart(pen, view.start);
  paintWays(pen, view);
  if (view.ghost && (view.hasCursor || !isNear(view.ghost, view.goal))) paintGhost(pen, view);
  return zoom;
}

const isNear = (place, goal) => goal && Math.hypot(place[0] - goal[0], place[1] - goal[1]) < 1;

/** The arena, the map on it, the walls on both. */
function paintGround({ context, zoom, to, low, high }, { map, walls }) {
  const side = (high - low) * zoom, left = to(low);
  context.fillStyle = colour("edge");
  context.fillRect(left - 2, left - 2, side + 4, side + 4);
  context.fillStyle = colour("sunken");
  context.fillRect(left, left, side, side);
  context.save();
  context.beginPath();
  context.rect(left, left, side, side);
  context.clip();
  if (map) paintMap({ context, zoom, to, low, high }, map);
  context.fillStyle = colour("muted");
  for (const [x, y, right, bottom] of walls) context.fillRect(to(x), to(y), (right - x) * zoom, (bottom - y) * zoom);
  context.restore();
}

/** The grid's first and last places lie one pixel inside the arena. */
function paintMap({ context, zoom, to, low, high }, map) {
  map.picture ??= mapPicture(map.rows, map.camp);
  const half = (high - low - 2) / (map.rows.length - 1) / 2, corner = to(low + 1 - half);
  const side = (high - low - 2 + 2 * half) * zoom;
  context.imageSmoothingEnabled = true;
  context.drawImage(map.picture, corner, corner, side, side);
}

/** The goal with the radius of success, fuller once the agent is there. */
function paintGoal(pen, { goal, radius, outcome }) {
  const [x, y] = pen.at(goal), good = colour("good"), { context } = pen;
  context.globalAlpha = outcome?.arrived ? 0.35 : 0.12;
  disc(context, [x, y], radius * pen.zoom, { fill: good });
  context.globalAlpha = 1;
  disc(context, [x, y], radius * pen.zoom, { stroke: colour("page"), width: 4 });
  disc(context, [x, y], radius * pen.zoom, { stroke: good, width: 2 });
  cross(context, [x, y], 4, colour("page"), 4.5);
  cross(context, [x, y], 4, good);
}

function paintStart({ context, at }, start) {
  const [x, y] = at(start);
  Object.assign(context, { lineWidth: 2, strokeStyle: colour("ink"), fillStyle: colour("page") });
  context.beginPath();
  context.rect(x - 6, y - 6, 12, 12);
  context.fill();
  context.stroke();
  Object.assign(context, { font: "600 12px system-ui, sans-serif", textAlign: "center", lineWidth: 3.5 });
  Object.assign(context, { strokeStyle: colour("page"), fillStyle: colour("ink") });
  const below = y < 40 ? y + 24 : y - 13;
  context.strokeText("start", x, below);
  context.fillText("start", x, below);
}

/** The way that was gone, solid; the plan, dotted to a hollow ring; the agent. */
function paintWays({ context, zoom, at }, view) {
  const halo = colour("page"), tone = toneOf(view.camp), ink = colour("ink");
  const gone = view.gone().map(at), agent = gone.at(-1);
  line(context, gone, { stroke: halo, width: 5.5 });
  line(context, gone, { stroke: tone, width: 3 });
  if (view.imagined.length && !view.outcome) {
    const plan = [view.searchedAt, ...view.imagined].map(at), end = plan.at(-1);
    line(context, plan, { stroke: halo, width: 5, dash: DOTS });
    line(context, plan, { stroke: ink, width: 3, dash: DOTS });
    disc(context, end, 5.5, { stroke: halo, width: 4.5 });
    disc(context, end, 5.5, { stroke: ink, width: 2 });
  }
  disc(context, agent, Math.max(5, 1.4 * zoom), { fill: tone, stroke: halo, width: 2 });
}

/** Where a goal would be: faint under the pointer, plain under the cursor of the keyboard. */
function paintGhost(pen, { ghost, hasCursor, radius }) {
  const place = pen.at(ghost), ink = colour("ink"), { context } = pen;
  context.globalAlpha = hasCursor ? 1 : 0.55;
  disc(context, place, radius * pen.zoom, { stroke: ink, width: hasCursor ? 2 : 1.25, dash: [4, 4] });
  if (hasCursor) cross(context, place, 7, ink);
  context.globalAlpha = 1;
}

function cross(context, [x, y], reach, stroke, width = 2) {
  line(context, [[x - reach, y], [x + reach, y]], { stroke, width });
  line(context, [[x, y - reach], [x, y + reach]], { stroke, width });
}

function line(context, points, { stroke, width, dash = [] }) {
  if (points.length < 2) return;
  context.beginPath();
  points.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)));
  Object.assign(context, { strokeStyle: stroke, lineWidth: width, lineCap: "round", lineJoin: "round" });
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

function disc(context, [x, y], radius, { fill, stroke, width = 1, dash = [] }) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  if (fill) {
    context.fillStyle = fill;
    context.fill();
  }
  if (!stroke) return;
  Object.assign(context, { strokeStyle: stroke, lineWidth: width });
  context.setLineDash(dash);
  context.stroke();
  context.setLineDash([]);
}

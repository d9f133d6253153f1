// State against nuisance: a point for each encoder, which moves to its new place and leaves a faint trail.

import { el, svg } from "./dom.js";

const TRAIL = 6;
const LOW = -0.08,
  HIGH = 1;
const SIDES = [
  [10, 4, "start"],
  [-10, 4, "end"],
  [0, -11, "middle"],
  [0, 20, "middle"],
  [10, -9, "start"],
  [10, 18, "start"],
];
const within = (value) => Math.min(HIGH, Math.max(LOW, value));

/** A mark by what an encoder was trained under; floors are crosses. */
const MARKS = {
  circle: () => svg("circle", { r: 6 }),
  square: () => svg("rect", { x: -5.5, y: -5.5, width: 11, height: 11 }),
  diamond: () => svg("path", { d: "M0 -7.5L7.5 0L0 7.5L-7.5 0Z" }),
  triangle: () => svg("path", { d: "M0 -7L7 6H-7Z" }),
  cross: () => svg("path", { d: "M-6 0H6M0 -6V6", class: "line" }),
};

/** A mark by itself, for a table or a key. */
export const mark = (shape, camp) =>
  svg(
    "svg",
    { class: `mark-icon ${camp}`, viewBox: "-9 -9 18 18", width: 16, height: 16, "aria-hidden": "true" },
    MARKS[shape](),
  );

/** The chart: {node, put, keep, fade, redraw, describe}. `at` is [nuisance, state]. */
export function scatter() {
  const points = new Map(); // by name: {node, trail, at, past, short, shape, camp}
  const frame = svg("g", { class: "frame" }),
    trails = svg("g", { class: "trails" }),
    marks = svg("g", { class: "marks" });
  const root = svg("svg", { class: "scatter", role: "img" }, frame, trails, marks);
  const size = { width: 560, height: 460, left: 52, bottom: 46, top: 14, right: 18 };
  const x = (value) => size.left + ((within(value) - LOW) / (HIGH - LOW)) * (size.width - size.left - size.right);
  const y = (value) =>
    size.height - size.bottom - ((within(value) - LOW) / (HIGH - LOW)) * (size.height - size.bottom - size.top);

  const axes = () => {
    frame.replaceChildren();
    for (const value of [0, 0.25, 0.5, 0.75, 1]) {
      frame.append(
        svg("path", { class: "grid-line", d: `M${x(value)} ${y(LOW)}V${y(HIGH)}M${x(LOW)} ${y(value)}H${x(HIGH)}` }),
        svg("text", { x: x(value), y: y(LOW) + 18, "text-anchor": "middle" }, String(value)),
        svg("text", { x: x(LOW) - 8, y: y(value) + 4, "text-anchor": "end" }, String(value)),
      );
    }
    frame.append(
      svg("path", { class: "axis", d: `M${x(LOW)} ${y(HIGH)}V${y(LOW)}H${x(HIGH)}` }),
      svg(
        "text",
        { class: "title", x: (x(LOW) + x(HIGH)) / 2, y: size.height - 6, "text-anchor": "middle" },
        "R² of the nuisance: what is kept of it",
      ),
      svg(
        "text",
        { class: "title", transform: `translate(14 ${(y(LOW) + y(HIGH)) / 2}) rotate(-90)`, "text-anchor": "middle" },
        "R² of the state",
      ),
    );
  };
  const place = (point) => {
    if (!point.at) return;
    const [px, py] = [x(point.at[0]), y(point.at[1])];
    point.node.style.transform = `translate(${px}px, ${py}px)`;
    point.trail.setAttribute("points", [...point.past, point.at].map((at) => `${x(at[0])},${y(at[1])}`).join(" "));
  };
  /** Puts each label on the first of four sides where it covers neither another label nor a mark. */
  const arrange = () => {
    const all = [...points.values()].filter((point) => point.at),
      taken = all.map(({ at }) => [x(at[0]) - 7, y(at[1]) - 7, x(at[0]) + 7, y(at[1]) + 7]);
    all.forEach((point, own) => {
      const [px, py] = [x(point.at[0]), y(point.at[1])],
        wide = 7.5 * point.text.textContent.length;
      const boxOf = ([dx, dy, anchor]) => {
        const from = px + dx - { start: 0, middle: wide / 2, end: wide }[anchor];
        return [from, py + dy - 11, from + wide, py + dy + 2];
      };
      const isFree = ([a, b, c, d]) =>
        a > size.left &&
        c < size.width &&
        taken.every(([e, f, g, h], i) => i === own || c < e || g < a || d < f || h < b);
      const side = SIDES.find((each) => isFree(boxOf(each))) ?? SIDES[0];
      taken.push(boxOf(side));
      point.text.setAttribute("x", side[0]);
      point.text.setAttribute("y", side[1]);
      point.text.setAttribute("text-anchor", side[2]);
    });
  };
  const make = ({ name, short, shape, camp }) => {
    const text = svg("text", { y: 4, class: "label" }, short);
    const node = svg("g", { class: `point ${camp}`, "data-name": name }, MARKS[shape](), text);
    const trail = svg("polyline", { class: `trail ${camp}` });
    marks.append(node);
    trails.append(trail);
    const made = { node, trail, text, at: null, past: [] };
    points.set(name, made);
    return made;
  };
  const redraw = () => {
    size.width = Math.max(280, Math.min(720, root.parentElement?.clientWidth ?? 560));
    size.height = Math.round(Math.min(480, 0.82 * size.width));
    root.setAttribute("viewBox", `0 0 ${size.width} ${size.height}`);
    root.setAttribute("width", size.width);
    root.setAttribute("height", size.height);
    axes();
    for (const point of points.values()) place(point);
    arrange();
  };
  /** Moves a point to where it now is, or makes it. */
  const put = (look, at) => {
    const point = points.get(look.name) ?? make(look);
    if (point.at && (point.at[0] !== at[0] || point.at[1] !== at[1]))
      point.past = [...point.past, point.at].slice(-TRAIL);
    point.at = at;
    point.node.classList.remove("stale");
    place(point);
    arrange();
  };
  /** Takes out all points but these. */
  const keep = (names) => {
    for (const [name, point] of points)
      if (!names.has(name)) {
        point.node.remove();
        point.trail.remove();
        points.delete(name);
      }
  };
  /** Fades all points until each is put anew. */
  const fade = () => {
    for (const point of points.values()) point.node.classList.add("stale");
  };
  const describe = (text) => root.setAttribute("aria-label", text);
  return { node: el("div.scatter-place", {}, root), put, keep, fade, redraw, describe };
}

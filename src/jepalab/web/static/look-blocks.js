// The outlines above a picture: target blocks that can be dragged, or patches that can be shown and hidden.

import { $, svg } from "./dom.js";
import { moved, outline, toggled } from "./look-grid.js";

const COLOURS = ["blue", "orange", "green", "purple"];
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

/** A touch that begins here moves this instead of the page: browsers heed touch-action on few SVG elements. */
const keepTouch = (node) => node.addEventListener("touchstart", (event) => event.preventDefault(), { passive: false });

/** Sets attributes. */
function put(node, facts) {
  for (const [key, value] of Object.entries(facts)) node.setAttribute(key, value);
}

/** The outlines of the mask that `read()` returns: {node, draw, clear}. `change(mask)` is called with a changed one,
 *  `draw(found)` shows the mask whose `parts` were found. */
export function outlines({ read, change }) {
  const node = svg("svg", { class: "overlay", role: "group", "aria-label": "Target blocks" });
  const cursor = { place: 0 };

  /** Where the pointer is, in patches. */
  const patchAt = (event) => {
    const box = node.getBoundingClientRect(),
      { side } = read();
    return [((event.clientY - box.top) / box.height) * side, ((event.clientX - box.left) / box.width) * side];
  };
  const move = (which, row, column) => {
    const next = moved(read(), which, row, column);
    const [was, is] = [read().blocks[which], next.blocks[which]];
    if (was.row !== is.row || was.column !== is.column) change(next);
  };
  /** The block that was chosen last, if the pointer is in it: others may lie above. */
  const under = (event) => {
    const which = [...node.children].indexOf(document.activeElement);
    if (which < 0) return null;
    const at = read().blocks[which];
    const [row, column] = patchAt(event);
    const isIn = row >= at.row && row < at.row + at.rows && column >= at.column && column < at.column + at.columns;
    return isIn ? which : null;
  };
  const grab = (event, block, which) => {
    event.preventDefault();
    block.focus({ preventScroll: true });
    block.setPointerCapture(event.pointerId);
    const at = read().blocks[which];
    const [row, column] = patchAt(event);
    const follow = (next) => {
      const [nowRow, nowColumn] = patchAt(next);
      move(which, Math.round(at.row + nowRow - row), Math.round(at.column + nowColumn - column));
    };
    const drop = () => {
      block.removeEventListener("pointermove", follow);
      block.classList.remove("held");
    };
    block.classList.add("held");
    block.addEventListener("pointermove", follow);
    block.addEventListener("lostpointercapture", drop, { once: true });
  };
  const block = (which) => {
    const facts = { tabindex: 0, role: "button", "aria-roledescription": "movable block" };
    const made = svg(
      "g",
      { class: `block ${COLOURS[which % COLOURS.length]}`, ...facts },
      svg("rect"),
      svg("circle"),
      svg("text", { "text-anchor": "middle" }, String(which + 1)),
    );
    made.addEventListener("keydown", (event) => {
      const step = STEPS[event.key];
      if (!step) return;
      event.preventDefault();
      const at = read().blocks[which];
      move(which, at.row + step[0], at.column + step[1]);
    });
    made.addEventListener("pointerdown", (event) => {
      const chosen = under(event) ?? which;
      grab(event, node.children[chosen], chosen);
    });
    keepTouch(made);
    return made;
  };
  const drawBlocks = ({ side, blocks, kind }) => {
    if (node.childElementCount !== blocks.length) node.replaceChildren(...blocks.map((_, which) => block(which)));
    const size = side / 22;
    blocks.forEach((at, which) => {
      const [rectangle, badge, number] = node.children[which].children;
      put(rectangle, { x: at.column, y: at.row, width: at.columns, height: at.rows });
      for (const each of [badge, number]) each.toggleAttribute("hidden", kind === "next");
      put(badge, { cx: at.column + size, cy: at.row + size, r: size * 0.8 });
      put(number, { x: at.column + size, y: at.row + size * 1.36, "font-size": size });
      const name = kind === "next" ? "The patch that is asked for" : `Target block ${which + 1}`;
      const where = `row ${range(at.row, at.rows)}, column ${range(at.column, at.columns)}`;
      put(node.children[which], { "aria-label": `${name}: ${where}. Arrow keys move it.` });
    });
  };
  const steer = (event) => {
    const mask = read(),
      { side } = mask;
    const [row, column] = [Math.floor(cursor.place / side), cursor.place % side];
    const within = (value) => Math.min(side - 1, Math.max(0, value));
    const step = STEPS[event.key];
    if (step) {
      cursor.place = within(row + step[0]) * side + within(column + step[1]);
      event.preventDefault();
      change(mask);
    } else if (event.key === " " || event.key === "Enter") {
      event.preventDefault();
      change(toggled(mask, cursor.place, !mask.seen.has(cursor.place)));
    }
  };
  /** Shows or hides the patches that the pointer passes over. */
  const brush = (event) => {
    event.preventDefault();
    const { side } = read(),
      target = event.currentTarget;
    const placeAt = (at) => {
      const [row, column] = patchAt(at).map((value) => Math.min(side - 1, Math.max(0, Math.floor(value))));
      return row * side + column;
    };
    const isSeen = !read().seen.has(placeAt(event));
    const follow = (at) => {
      cursor.place = placeAt(at);
      change(toggled(read(), cursor.place, isSeen));
    };
    target.setPointerCapture(event.pointerId);
    target.addEventListener("pointermove", follow);
    const drop = () => target.removeEventListener("pointermove", follow);
    target.addEventListener("lostpointercapture", drop, { once: true });
    follow(event);
  };
  const drawPatches = ({ side }, { asked, seen }) => {
    if (!$(".cursor", node)) {
      const surface = svg("rect", { class: "surface" });
      const steered = svg("rect", { class: "cursor", width: 1, height: 1, tabindex: 0, role: "button" });
      steered.addEventListener("keydown", steer);
      for (const each of [surface, steered]) {
        each.addEventListener("pointerdown", brush);
        keepTouch(each);
      }
      node.replaceChildren(surface, svg("path", { class: "hidden-outline" }), steered);
    }
    put($(".surface", node), { width: side, height: side });
    put($(".hidden-outline", node), { d: outline([...asked], side) });
    const [row, column] = [Math.floor(cursor.place / side), cursor.place % side];
    const now = seen.has(cursor.place) ? "seen" : "hidden";
    put($(".cursor", node), {
      x: column,
      y: row,
      "aria-label":
        `Patch in row ${row + 1}, column ${column + 1}: ${now}. ` +
        "Arrow keys choose a patch, space shows or hides it.",
    });
  };
  const draw = (found) => {
    const mask = read();
    put(node, { viewBox: `0 0 ${mask.side} ${mask.side}` });
    if (mask.kind === "random") drawPatches(mask, found);
    else drawBlocks(mask);
  };
  const clear = () => {
    cursor.place = 0;
    node.replaceChildren();
  };
  return { node, draw, clear };
}

const range = (first, many) => (many === 1 ? `${first + 1}` : `${first + 1} to ${first + many}`);

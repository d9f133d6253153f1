// Masks over a picture: three views, target blocks that can be dragged, and what each objective has to predict.

import { $, colour, el, redraw, work } from "./dom.js";
import { outlines } from "./look-blocks.js";
import { editable, parts } from "./look-grid.js";
import { newest, settled } from "./look-latest.js";
import { FAIR, HOW, contextWords, inWords, per, predictions } from "./look-mask-words.js";
import { chooser, current, onPicture } from "./look-picture.js";
import { sheet } from "./look-pixels.js";

const SAMPLERS = {
  blocks: "I-JEPA blocks, drawn fairly",
  reference: "I-JEPA blocks, official code with its bias",
  random: "random patches, as MAE hides them",
  next: "the next patch, in reading order (AIM)",
};
const SIDES = [4, 7, 8, 10, 12, 14, 16, 20];
const state = {
  sampler: "blocks",
  side: 14,
  hidden: 0.75,
  seed: 0,
  number: 0,
  drawn: null,
  mask: null,
  isMoved: false,
};
const ui = {};

/** Builds the part; called once. */
export async function open(body) {
  ui.line = el("p.state", { role: "status" });
  ui.spoken = el("p.unseen", { role: "status" });
  body.replaceChildren(controls(), views(), counts(), words(), coverage(), ui.spoken);
  const first = draw();
  const { node } = chooser("Picture");
  $(".look-masks-controls", body).before(node);
  onPicture(render);
  redraw(() => {
    render();
    drawCoverage();
  });
  await first;
}

function controls() {
  const select = (options, value, change) =>
    el(
      "select",
      { onchange: (event) => change(event.target.value) },
      ...Object.entries(options).map(([key, label]) =>
        el("option", { value: key, selected: key === String(value) }, label),
      ),
    );
  ui.hidden = el("input", { type: "range", min: 0.1, max: 0.9, step: 0.05, value: state.hidden, oninput: hide });
  ui.hiddenRow = el("label.slider", { hidden: true }, "Share hidden ", ui.hidden);
  const sides = Object.fromEntries(SIDES.map((side) => [side, `${side} × ${side}`]));
  return el(
    "div.row.look-masks-controls",
    {},
    el(
      "label",
      {},
      "Sampler",
      select(SAMPLERS, state.sampler, (value) => {
        state.sampler = value;
        draw();
      }),
    ),
    el(
      "label",
      {},
      "Patches",
      select(sides, state.side, (value) => {
        state.side = Number(value);
        draw();
      }),
    ),
    ui.hiddenRow,
    el("button", { type: "button", onclick: another }, "Draw another mask"),
    (ui.back = el(
      "button.quiet",
      { type: "button", onclick: () => choose(state.number), disabled: true },
      "Undo moves",
    )),
    ui.line,
  );
}

const hide = settled(() => {
  state.hidden = Number(ui.hidden.value);
  draw();
}, 150);

/** The next of the masks that were drawn, or new ones. */
function another() {
  if (state.drawn && state.number + 1 < state.drawn.masks.length) return choose(state.number + 1);
  state.seed += 1;
  return draw();
}

const asked = newest(async (given, { signal, tell, isStale }) => {
  ui.line.textContent = "Drawing masks …";
  ui.line.classList.remove("bad");
  try {
    const found = await work("masks", given, { signal, tell });
    if (isStale()) return;
    state.drawn = found;
    ui.line.textContent = "";
    choose(0);
  } catch (error) {
    if (isStale()) return;
    ui.line.textContent = error.message;
    ui.line.classList.add("bad");
  }
});

function draw() {
  ui.hiddenRow.hidden = state.sampler !== "random";
  return asked({ grid: state.side, sampler: state.sampler, seed: state.seed, hidden: state.hidden });
}

function choose(number) {
  state.number = number;
  state.isMoved = false;
  state.mask = editable(state.drawn.masks[number], { sampler: state.drawn.sampler, side: state.drawn.grid });
  ui.outlines.clear();
  render();
  drawCoverage();
}

function views() {
  const view = (name, title, ...extra) => {
    ui[name] = el("canvas.view", { role: "img", width: 448, height: 448 });
    return el(
      "figure.mask-view",
      {},
      el("h3", {}, title),
      el("div.stage", {}, ui[name], ...extra),
      (ui[`${name}Words`] = el("figcaption")),
    );
  };
  ui.outlines = outlines({ read: () => state.mask, change });
  return el(
    "div.mask-views",
    {},
    view("targets", "What has to be predicted", ui.outlines.node),
    view("context", "What the encoder sees"),
    view("rest", "Neither seen nor asked for"),
  );
}

function counts() {
  ui.bar = el("div.share-bar", { "aria-hidden": "true" });
  ui.counts = el("dl.counts");
  return el("div.card.shares", {}, ui.bar, ui.counts);
}

function words() {
  ui.words = el("div.grid");
  return el("div", {}, el("h3", {}, "What each objective has to predict here"), ui.words);
}

function coverage() {
  ui.maps = el("div.maps");
  ui.coverage = el(
    "div",
    { hidden: true },
    el("h3", {}, "Is the sampler fair?"),
    ui.maps,
    (ui.coverageWords = el("p.small")),
  );
  return ui.coverage;
}

/** Takes a mask that was changed by hand. */
function change(mask) {
  state.isMoved ||= mask !== state.mask;
  state.mask = mask;
  render();
  speak();
}

const speak = settled(() => {
  ui.spoken.textContent = inWords(parts(state.mask), state.mask.side);
}, 500);

/** Everything, from the mask as it is now. */
function render() {
  if (!state.mask || !current().source) return;
  const found = parts(state.mask);
  paint(ui.context, (place) => (found.seen.has(place) ? 1 : 0));
  paint(ui.targets, (place) => (found.asked.has(place) ? 1 : 0.22));
  paint(ui.rest, (place) => (found.neither.has(place) ? 1 : 0));
  if (state.mask.box) frame(ui.context, state.mask.box);
  ui.outlines.draw(found);
  tellCounts(found);
  ui.words.replaceChildren(
    ...predictions(state.mask, found).map(([camp, name, text]) =>
      el("div.card", {}, el("h4", { class: camp }, name), el("p", {}, text)),
    ),
  );
  ui.back.disabled = !state.isMoved;
}

/** The picture, patch by patch, each as opaque as `alpha` says. */
function paint(canvas, alpha) {
  const { side } = state.mask,
    cell = Math.floor(448 / side),
    { source } = current();
  canvas.width = canvas.height = cell * side;
  const brush = canvas.getContext("2d"),
    whole = sheet(cell * side),
    first = whole.getContext("2d");
  first.imageSmoothingEnabled = source.width >= 64;
  first.drawImage(source, 0, 0, cell * side, cell * side);
  brush.fillStyle = colour("sunken");
  brush.fillRect(0, 0, canvas.width, canvas.height);
  for (let place = 0; place < side * side; place++) {
    const x = (place % side) * cell,
      y = Math.floor(place / side) * cell;
    brush.globalAlpha = alpha(place);
    if (brush.globalAlpha) brush.drawImage(whole, x, y, cell, cell, x, y, cell, cell);
  }
  brush.globalAlpha = 1;
  brush.strokeStyle = colour("rule");
  brush.beginPath();
  for (let i = 1; i < side; i++) {
    brush.moveTo(i * cell + 0.5, 0);
    brush.lineTo(i * cell + 0.5, canvas.height);
    brush.moveTo(0, i * cell + 0.5);
    brush.lineTo(canvas.width, i * cell + 0.5);
  }
  brush.stroke();
}

/** The context block, as a dashed frame. */
function frame(canvas, box) {
  const cell = canvas.width / state.mask.side,
    brush = canvas.getContext("2d");
  brush.strokeStyle = colour("muted");
  brush.lineWidth = 3;
  brush.setLineDash([9, 6]);
  brush.strokeRect(box.column * cell + 1.5, box.row * cell + 1.5, box.columns * cell - 3, box.rows * cell - 3);
}

/** The three shares, as a bar and in numbers, and what each view shows. */
function tellCounts({ seen, asked, neither, targets }) {
  const { side } = state.mask,
    total = side ** 2,
    name = current().name;
  const each = [
    ["context", "seen by the encoder", seen],
    ["asked", "to be predicted", asked],
    ["neither", "neither", neither],
  ];
  ui.bar.replaceChildren(
    ...each.map(([kind, , set]) => {
      const piece = el(`span.${kind}`);
      piece.style.flexGrow = String(set.size);
      return piece;
    }),
  );
  ui.counts.replaceChildren(
    ...each.map(([kind, label, set]) =>
      el(
        `div.${kind}`,
        {},
        el("dt", {}, label),
        el("dd", { "data-count": kind }, el("strong", {}, per(set.size, side)), ` ${set.size} of ${total}`),
      ),
    ),
  );
  ui.context.setAttribute("aria-label", `The ${name} as the encoder sees it: ${seen.size} of ${total} patches.`);
  ui.targets.setAttribute(
    "aria-label",
    `The ${name} at ${targets.length > 1 ? `${targets.length} target blocks` : "the target"}: ${asked.size} patches.`,
  );
  ui.rest.setAttribute("aria-label", `The ${name} where it is neither seen nor asked for: ${neither.size} patches.`);
  const usual = state.drawn.masks[state.number].context.length;
  ui.contextWords.textContent = contextWords(state.mask, { seen }, { usual, isMoved: state.isMoved });
  ui.targetsWords.textContent = HOW[state.mask.kind];
  ui.restWords.textContent = neither.size ? "Nobody is asked about this." : "Nothing: all that is hidden is asked for.";
}

/** How often each patch is seen, and asked for, over many masks. */
function drawCoverage() {
  if (!state.drawn) return;
  const { seen, asked, grid: side, sampler } = state.drawn;
  ui.coverage.hidden = !seen;
  if (!seen) return;
  const map = (shares, title, tint) => {
    const canvas = el("canvas.pixels", { role: "img", width: side, height: side }),
      brush = canvas.getContext("2d");
    const [low, high] = [Math.min(...shares), Math.max(...shares)];
    shares.forEach((share, place) => {
      brush.globalAlpha = high > 0 ? share / high : 0;
      brush.fillStyle = colour(tint);
      brush.fillRect(place % side, Math.floor(place / side), 1, 1);
    });
    const words = `${title}: ${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %`;
    canvas.setAttribute("aria-label", `${words}, by place.`);
    return el("figure", {}, canvas, el("figcaption", {}, words));
  };
  ui.maps.replaceChildren(map(seen, "Seen", "ink"), map(asked, "Asked for", "blue"));
  const what = "How often each place is seen, and asked for, over 1,024 masks; stronger is more often.";
  ui.coverageWords.textContent = `${what} ${FAIR[sampler]}`;
}

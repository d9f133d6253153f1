// The nuisance dials: a clip under them, and every encoder's state and nuisance R2, moving as they move.

import { $, amount, el, redraw, work } from "./dom.js";
import { clipOf, isStill, player, strip } from "./look-clip.js";
import { newest, settled } from "./look-latest.js";
import { paintGrey } from "./look-pixels.js";
import { missing, runsOf } from "./look-runs.js";
import { mark, scatter } from "./look-scatter.js";

const DIALS = [
  // name, words, what it does, lowest, highest, step, value
  ["strength", "Strength α", "it adds values from 0 to α to pixels from 0 to 1", 0, 3, 0.1, 1],
  ["persistence", "Persistence ρ", "0: new at every frame; 1: fixed for the clip", 0, 1, 0.05, 0],
  ["share", "Share of the frame", "a square in the lower right corner, below 1", 0.1, 1, 0.05, 1],
  ["scale", "Size of the digit", "canvas pixels for a pixel of the digit", 0.75, 2.5, 0.05, 1.25],
  ["max_step", "Speed", "largest step along an axis, in half widths", 0.05, 0.5, 0.05, 0.2],
];
const CHOICES = {
  coherence: ["What it looks like", { patch: "7 × 7 cells", pixel: "each pixel by itself", texture: "one grating" }],
  driver: ["What moves it", { chance: "chance", action: "the digit's own motion" }],
};
const STARTS = {
  "Changing distractor": { strength: 2, persistence: 0 },
  "Fixed distractor": { strength: 1, persistence: 1 },
  "No distractor": { strength: 0, persistence: 0 },
};
const COLUMNS = [
  // of the table: what is read, its name, and whether a phone leaves it out
  ["state", "State"],
  ["position", "Position", true],
  ["nuisance", "Nuisance"],
  ["classes", "Class", true],
];
const FLOORS = { "random encoder": "random", "pixel PCA": "PCA" };
const COMMANDS = [
  "python3 dev.py demo",
  "jepalab compare distractor --preset demo",
  "jepalab train vicreg-jepa --strength 2 --steps 500",
];
const AT_ONCE = 6; // encoders in one piece of work, so that a dial that moves on waits for few
const MOST = 48;
const WAIT = 180;
const state = { values: {}, runs: [], comparison: "", seed: "0", clip: null, found: new Map(), error: "" };
const ui = {};

/** Builds the part; called once. */
export async function open(body) {
  for (const [name, , , , , , value] of DIALS) state.values[name] = value;
  Object.assign(state.values, { coherence: "patch", driver: "chance" });
  ui.line = el("p.state", { role: "status" });
  ui.chart = scatter();
  ui.rows = el("tbody");
  ui.which = el("div.row.dial-which");
  ui.note = el("div");
  body.replaceChildren(
    el(
      "div.dial-layout",
      {},
      ui.which,
      (ui.place = el("div.dial-chart", {}, ui.chart.node, ui.line)),
      el("div.dial-side", {}, starts(), dials(), preview()),
      el("div.dial-rest", {}, key(), table(), ui.note),
    ),
  );
  redraw(() => {
    ui.place.style.top = `${$(".top").offsetHeight}px`; // where it sticks on a phone, below the head of the page
    ui.chart.redraw();
  });
  try {
    state.runs = (await runsOf("moving", { again: true })).filter((run) => run.objective !== "Untrained");
  } catch (error) {
    state.error = error.message;
  }
  chooseRuns();
  await ask(null);
  return {
    hide: () => ui.player.pause(),
    show: () => {
      if (!isStill()) ui.player.play();
    },
  };
}

function starts() {
  return el(
    "div.row.starts",
    { role: "group", "aria-label": "Settings to begin with" },
    ...Object.entries(STARTS).map(([label, values]) =>
      el(
        "button.quiet",
        {
          type: "button",
          onclick: () => {
            set(values);
            later();
          },
        },
        label,
      ),
    ),
  );
}

function set(values) {
  Object.assign(state.values, values);
  for (const [name, value] of Object.entries(values)) {
    ui[name].value = value;
    ui[`${name} said`].textContent = String(Number(value));
  }
}

function dials() {
  const sliders = DIALS.map(([name, label, words, min, max, step, value]) => {
    ui[`${name} said`] = el("output", {}, String(value));
    ui[name] = el("input", {
      type: "range",
      min,
      max,
      step,
      value,
      oninput: (event) => {
        set({ [name]: Number(event.target.value) });
        later();
      },
    });
    return el("label.dial", {}, el("span", {}, `${label} `, ui[`${name} said`]), ui[name], el("small", {}, words));
  });
  const selects = Object.entries(CHOICES).map(([name, [label, options]]) =>
    el(
      "label.dial",
      {},
      label,
      el(
        "select",
        {
          onchange: (event) => {
            state.values[name] = event.target.value;
            later();
          },
        },
        ...Object.entries(options).map(([value, words]) => el("option", { value }, words)),
      ),
    ),
  );
  return el("fieldset.dials", {}, el("legend", {}, "Dials"), ...sliders, ...selects);
}

function preview() {
  ui.canvas = el("canvas.pixels.preview", {
    role: "img",
    width: 28,
    height: 28,
    "aria-label": "A clip under these dials.",
  });
  ui.strip = el("div.strip", { hidden: true });
  ui.player = player({
    count: 24,
    label: "Frame of the clip",
    show: (frame) => {
      if (state.clip) paintGrey(ui.canvas, state.clip.bytes, state.clip.side, frame);
    },
  });
  return el(
    "figure.clip",
    {},
    ui.canvas,
    ui.strip,
    ui.player.node,
    el("figcaption", {}, "A test clip of this world, brightness scaled to fit."),
  );
}

function showClip({ pixels, side, num_frames: count }) {
  const isFirst = !state.clip;
  state.clip = clipOf(pixels, side, count);
  const { strength, persistence } = state.values;
  ui.canvas.setAttribute(
    "aria-label",
    `A digit that moves under a distractor of strength ${strength} and persistence ${persistence}.`,
  );
  ui.strip.hidden = !isStill();
  if (isStill()) {
    const shown = strip(state.clip, [0, 4, 8, 12, 16, 20]);
    shown.setAttribute("role", "img");
    shown.setAttribute("aria-label", "Six frames of the clip, side by side.");
    ui.strip.replaceChildren(shown);
  }
  ui.player.go(ui.player.frame);
  if (isFirst && !isStill()) ui.player.play();
}

/** Which encoders stand in the chart: of one comparison and seed, or single runs. */
function chooseRuns() {
  const comparisons = [...new Set(state.runs.map((run) => run.comparison ?? ""))];
  state.comparison = comparisons.find(Boolean) ?? "";
  const select = (label, options, value, change) =>
    el(
      "label",
      {},
      label,
      el(
        "select",
        {
          onchange: (event) => {
            change(event.target.value);
            ask(null);
          },
        },
        ...options.map(([key, words]) => el("option", { value: key, selected: key === value }, words)),
      ),
    );
  const seeds = [...new Set(state.runs.filter((run) => run.comparison).map((run) => String(run.seed)))].sort();
  state.seed = seeds[0] ?? "0";
  if (state.runs.length)
    ui.which.replaceChildren(
      select(
        "Encoders of",
        comparisons.map((name) => [name, name || "single runs"]),
        state.comparison,
        (value) => {
          state.comparison = value;
        },
      ),
      seeds.length > 1
        ? select("Seed", [...seeds.map((seed) => [seed, seed]), ["all", "all"]], state.seed, (value) => {
            state.seed = value;
          })
        : "",
    );
  else
    ui.note.replaceChildren(
      missing(
        state.error ||
          "There is no trained encoder of a moving object here yet, so the floors stand alone. " +
            "These commands train some:",
        ...COMMANDS,
      ),
    );
}

/** The trained encoders in the chart, with how they look. */
function shown() {
  const few = state.runs.filter(
    (run) =>
      (run.comparison ?? "") === state.comparison &&
      (!run.comparison || state.seed === "all" || String(run.seed) === state.seed),
  );
  const conditions = [...new Set(few.map((run) => run.condition))],
    shapes = ["circle", "square", "diamond", "triangle"];
  return few.slice(0, MOST).map((run) => ({
    name: run.name,
    short: run.arm,
    label: run.label,
    under: run.condition ?? "its own settings",
    words: run.under,
    shape: shapes[conditions.indexOf(run.condition) % shapes.length],
    camp: run.camp,
  }));
}

const floors = () =>
  Object.entries(FLOORS).map(([name, short]) => ({
    name,
    short,
    label: `${name} (floor)`,
    under: "nothing",
    shape: "cross",
    camp: "other",
  }));

const later = settled(() => ask(null), WAIT);

const ask = newest(async (_, { signal, tell, isStale }) => {
  const looks = [...floors(), ...shown()],
    byName = new Map(looks.map((look) => [look.name, look]));
  ui.chart.keep(new Set(byName.keys()));
  for (const name of state.found.keys()) if (!byName.has(name)) state.found.delete(name);
  ui.chart.fade();
  ui.line.classList.remove("bad");
  ui.line.textContent = "Embedding new clips …";
  const hear = (event, value) => {
    tell(event);
    if (event === "waiting") ui.line.textContent = "Waiting for other work to end …";
    if (event !== "progress" || isStale()) return;
    if (value.clip) showClip(value.clip);
    if (value.point) take(byName, value.point);
  };
  try {
    const runs = looks.map((look) => look.name).filter((name) => !(name in FLOORS));
    const values = { ...state.values };
    let [read, seconds, tests] = [0, 0, 0];
    for (let at = 0; at === 0 || at < runs.length; at += AT_ONCE) {
      const given = { ...values, runs: runs.slice(at, at + AT_ONCE), floors: at === 0 };
      const found = await work("dials", given, { signal, tell: hear });
      if (isStale()) return;
      for (const point of found.points) take(byName, point);
      [read, seconds, tests] = [read + found.points.length, seconds + found.seconds, found.num_test];
    }
    ui.line.textContent =
      `${read} encoders read in ${seconds.toFixed(1)} s, on ${tests} test clips.` +
      (values.strength === 0 ? " Nothing is added to the picture, so there is no nuisance to keep." : "");
    describe(looks);
  } catch (error) {
    if (isStale()) return;
    ui.line.textContent = error.message;
    ui.line.classList.add("bad");
  }
});

/** One encoder's reading: its point moves, its row is written. */
function take(byName, point) {
  const look = byName.get(point.name);
  if (!look) return;
  state.found.set(point.name, point);
  if (!point.error) ui.chart.put(look, [point.nuisance ?? 0, point.state]);
  ui.rows.replaceChildren(
    ...[...byName.values()]
      .filter((each) => state.found.has(each.name))
      .map((each) => row(each, state.found.get(each.name))),
  );
}

function row(look, point) {
  const cells = point.error
    ? [el("td", { colspan: 4 }, point.error)]
    : COLUMNS.map(([key, , isWide]) => {
        const value = point[key];
        const text = value === null ? "–" : value.toFixed(2).replace("-", "−");
        return el(isWide ? "td.number.wide-only" : "td.number", {}, text);
      });
  return el(
    "tr",
    { "data-name": look.name },
    el("th", { scope: "row" }, mark(look.shape, look.camp), ` ${look.label}`),
    el("td", {}, look.under, look.words && el("small.wide-only", {}, look.words)),
    ...cells,
  );
}

function table() {
  const numbers = COLUMNS.map(([, name, isWide]) =>
    el(isWide ? "th.number.wide-only" : "th.number", { scope: "col" }, name),
  );
  return el(
    "div.scroll",
    { tabindex: 0, role: "region", "aria-label": "R² of every encoder" },
    el(
      "table",
      {},
      el("caption", {}, "R² on test clips; accuracy of ten classes"),
      el(
        "thead",
        {},
        el("tr", {}, el("th", { scope: "col" }, "Encoder"), el("th", { scope: "col" }, "Trained under"), ...numbers),
      ),
      ui.rows,
    ),
  );
}

const key = () =>
  el(
    "p.small.key",
    {},
    el("span.JEPA", {}, "JEPA"),
    " ",
    el("span.generative", {}, "generative"),
    " ",
    el("span.other", {}, "neither"),
    " · the shape says what an encoder was trained under, a cross is a floor that learned nothing · " +
      "the line behind a point is where it came from",
  );

function describe(looks) {
  const words = looks
    .map((look) => [look, state.found.get(look.name)])
    .filter(([, point]) => point && !point.error)
    .map(
      ([look, point]) =>
        `${look.short} ${look.under}: state ${amount(point.state, 2)}, nuisance ${amount(point.nuisance, 2)}`,
    );
  ui.chart.describe(`State R² against nuisance R². ${words.join("; ")}.`);
}

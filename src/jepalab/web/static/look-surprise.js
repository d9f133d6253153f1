// Surprise under a clip: matched possible and impossible clips side by side, and errors that grow with the frames.

import { el, redraw, svg, work } from "./dom.js";
import { clipOf, isStill, player, strip } from "./look-clip.js";
import { newest } from "./look-latest.js";
import { paintGrey } from "./look-pixels.js";
import { missing, runsOf, titled } from "./look-runs.js";

const KINDS = {
  permanence: "permanence: it vanishes or appears",
  continuity: "continuity: it changes its lane",
  solidity: "solidity: it passes a wall",
  shape: "shape constancy: another comes out",
  gravity: "gravity: it falls the wrong way",
  background: "legal: the background changes",
  look: "legal: white comes out black",
  flicker: "legal: the light flickers",
};
const SPACES = { latent: "its embedding", tokens: "tokens" };
const COMMANDS = ["jepalab train expect-embedding-vicreg", "jepalab train expect-pixels"];
const state = { runs: [], run: "", kind: "permanence", pair: 0, strength: 0, answer: null };
const ui = {};

/** Builds the part; called once. */
export async function open(body) {
  ui.line = el("p.state", { role: "status" });
  ui.select = el("select", {
    onchange: (event) => {
      state.run = event.target.value;
      ask(null);
    },
  });
  ui.television = el("input", {
    type: "range",
    min: 0,
    max: 2,
    step: 0.5,
    value: 0,
    onchange: (event) => {
      state.strength = Number(event.target.value);
      ask(null);
    },
  });
  ui.televisionRow = el("label.slider", {}, "Television behind it", ui.television);
  ui.note = el("div");
  body.replaceChildren(
    el(
      "div.row",
      {},
      el("label", {}, "Run", ui.select),
      el("label", {}, "What happens", kinds()),
      ui.televisionRow,
      el(
        "button.quiet",
        {
          type: "button",
          onclick: () => {
            state.pair = (state.pair + 1) % 16;
            ask(null);
          },
        },
        "Another pair",
      ),
      ui.line,
    ),
    clips(),
    ui.note,
  );
  redraw(() => {
    if (state.answer) chart();
  });
  try {
    state.runs = await runsOf("surprise", { again: true });
  } catch (error) {
    ui.line.textContent = error.message;
  }
  state.run = state.runs[0]?.name ?? "";
  ui.select.replaceChildren(
    ...state.runs.map((run) => el("option", { value: run.name }, titled(run))),
    el("option", { value: "" }, "none, baselines alone"),
  );
  if (!state.runs.length)
    ui.note.replaceChildren(
      missing(
        "No run has learned to expect clips here yet, so the baselines stand alone. These commands train some:",
        ...COMMANDS,
      ),
    );
  await ask(null);
  return { hide: () => ui.player.pause() };
}

const kinds = () =>
  el(
    "select",
    {
      onchange: (event) => {
        state.kind = event.target.value;
        ask(null);
      },
    },
    ...Object.entries(KINDS).map(([value, words]) => el("option", { value }, words)),
  );

function clips() {
  const clip = (name, title) => {
    ui[name] = el("canvas.pixels", { role: "img", width: 32, height: 32 });
    ui[`${name} title`] = el("h3", {}, title);
    return el("figure.twin", {}, ui[`${name} title`], ui[name]);
  };
  ui.player = player({ count: 16, perSecond: 4, label: "Frame of both clips", show: step });
  ui.curves = el("div.curves");
  ui.told = el("ul.told");
  ui.playing = el(
    "div",
    { hidden: true },
    el("div.twins", {}, clip("possible", "Possible"), clip("impossible", "Impossible")),
    ui.player.node,
    el("h3", {}, "Surprise, frame by frame"),
    ui.curves,
    el(
      "p.small",
      {},
      "Mean squared errors of each model, in units of its own mean over all clips: curves are compared within a " +
        "panel, never between. Dashed: the possible clip. Full: the other.",
    ),
    ui.told,
  );
  return ui.playing;
}

const ask = newest(async (_, { signal, tell, isStale }) => {
  ui.line.classList.remove("bad");
  ui.line.textContent = "Showing clips …";
  ui.televisionRow.hidden = Boolean(state.run);
  try {
    const { run, kind, pair, strength } = state;
    const answer = await work("surprise", { run, kind, pair, strength }, { signal, tell });
    if (isStale()) return;
    take(answer);
  } catch (error) {
    if (isStale()) return;
    ui.line.textContent = error.message;
    ui.line.classList.add("bad");
  }
});

function take(answer) {
  const isFirst = !state.answer,
    { side, num_frames: count } = answer;
  state.answer = {
    ...answer,
    possibleClip: clipOf(answer.possible, side, count),
    impossibleClip: clipOf(answer.impossible, side, count),
  };
  ui.line.textContent = "";
  ui.playing.hidden = false;
  ui["possible title"].textContent = answer.is_legal ? "As it was" : "Possible";
  ui["impossible title"].textContent = answer.is_legal ? "Changed, legally" : "Impossible";
  chart();
  tellApart();
  ui.player.resize(count);
  if (isFirst && !isStill()) ui.player.play();
}

const odd = () => (state.answer.is_legal ? "changed" : "impossible");
const named = (curve) =>
  ({
    run: state.runs.find((run) => run.name === state.run)?.label ?? "this run",
    untrained: "untrained network",
    copy: "copies the last frame",
  })[curve.name];
const campOf = (curve) =>
  curve.name === "run" ? (state.runs.find((run) => run.name === state.run)?.camp ?? "other") : "other";

/** How often each is more surprised by the odd clip. */
function tellApart() {
  const { curves, num_pairs: pairs, is_legal: isLegal } = state.answer;
  ui.told.replaceChildren(
    ...curves.map((curve) =>
      el(
        "li",
        {},
        el("b", { class: campOf(curve) }, named(curve)),
        `: more surprised by the ${odd()} clip in ${Number((curve.told_apart * pairs).toFixed(1))} of ${pairs} pairs` +
          (isLegal ? "; nobody should be" : "; half of them is chance"),
      ),
    ),
  );
}

/** Frames along the top, then a panel for each model, all on one axis of time. */
function chart() {
  const { curves, num_frames: count, frame } = state.answer;
  const width = Math.max(280, Math.min(880, ui.curves.clientWidth || 640)),
    left = 58,
    right = 8;
  const cell = (width - left - right) / count,
    panel = 92,
    gap = 34,
    top = 2 * cell + 20;
  const x = (at) => left + (at + 0.5) * cell,
    height = top + curves.length * (panel + gap) + 34;
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", class: "surprise" });
  ["possibleClip", "impossibleClip"].forEach((name, row) => {
    const frames = strip(
      state.answer[name],
      Array.from({ length: count }, (_, i) => i),
    );
    root.append(
      svg("image", {
        href: frames.toDataURL(),
        x: left,
        y: row * (cell + 4),
        width: cell * count,
        height: cell,
        preserveAspectRatio: "none",
        class: "pixels",
      }),
    );
    root.append(
      svg(
        "text",
        { x: left - 6, y: row * (cell + 4) + cell / 2 + 4, "text-anchor": "end" },
        row ? (odd() === "changed" ? "changed" : "imposs.") : odd() === "changed" ? "as it was" : "possible",
      ),
    );
  });
  ui.grown = svg("rect", { x: 0, y: 0, width: 0, height });
  root.append(svg("defs", {}, svg("clipPath", { id: "grown" }, ui.grown)));
  curves.forEach((curve, i) =>
    root.append(
      panelOf(curve, {
        x,
        y0: top + gap + i * (panel + gap) - 10,
        panel,
        left,
        end: width - right,
        isNarrow: width < 520,
      }),
    ),
  );
  const foot = height - 36;
  for (const at of [0, 3, 7, 11, 15])
    if (at < count) root.append(svg("text", { x: x(at), y: foot + 8, "text-anchor": "middle" }, String(at + 1)));
  root.append(svg("path", { class: "differs", d: `M${left + frame * cell} 0V${height - 16}` }));
  root.append(
    svg(
      "text",
      { class: "differs-word", x: left + frame * cell - 4, y: height - 8, "text-anchor": "end" },
      "the clips differ from here on",
    ),
  );
  ui.cursor = svg("rect", { class: "frame-cursor", y: 0, width: cell, height: foot - 4 });
  root.append(ui.cursor);
  ui.scale = { left, cell };
  ui.root = root;
  ui.curves.replaceChildren(root);
  step(ui.player.frame);
}

/** One model: dashed for the possible clip, full for the other. */
function panelOf(curve, { x, y0, panel, left, end, isNarrow }) {
  const most = Math.max(1e-9, ...curve.possible, ...curve.impossible) * 1.08,
    y = (value) => y0 + panel * (1 - value / most);
  const middle = (curve.stride - 1) / 2;
  const line = (values) =>
    values
      .map((value, i) => `${i ? "L" : "M"}${x(curve.frames[i] + middle).toFixed(1)} ${y(value).toFixed(1)}`)
      .join("");
  const dots = (values, kind) =>
    values.map((value, i) => svg("circle", { cx: x(curve.frames[i] + middle), cy: y(value), r: 2.5, class: kind }));
  return svg(
    "g",
    { class: `panel ${campOf(curve)}` },
    svg("path", { class: "axis", d: `M${left} ${y0}V${y0 + panel}H${end}` }),
    svg(
      "text",
      { x: left + 4, y: y0 - 6, class: "name" },
      named(curve) + (isNarrow ? "" : `, errors in ${SPACES[curve.space] ?? "pixels"}`),
    ),
    svg("text", { x: left - 6, y: y0 + 8, "text-anchor": "end" }, most.toFixed(1)),
    isNarrow
      ? null
      : svg("text", { x: x(1.5), y: y0 + panel / 2 + 4, "text-anchor": "middle" }, `errors count from frame ${state.answer.context + 1}`),
    svg("text", { x: left - 6, y: y0 + panel, "text-anchor": "end" }, "0"),
    svg(
      "g",
      { "clip-path": "url(#grown)" },
      svg("path", { class: "possible", d: line(curve.possible) }),
      svg("path", { class: "impossible", d: line(curve.impossible) }),
      ...dots(curve.possible, "possible-dot"),
      ...dots(curve.impossible, "impossible-dot"),
    ),
  );
}

/** Both clips and the cursor at one frame. */
function step(frame) {
  const { answer } = state;
  if (!answer) return;
  paintGrey(ui.possible, answer.possibleClip.bytes, answer.side, frame);
  paintGrey(ui.impossible, answer.impossibleClip.bytes, answer.side, frame);
  const after = frame < answer.frame ? "before they differ" : "after they differ";
  for (const name of ["possible", "impossible"])
    ui[name].setAttribute(
      "aria-label",
      `The ${name === "possible" ? "possible" : odd()} clip, frame ${frame + 1} of ${answer.num_frames}, ${after}.`,
    );
  const { left, cell } = ui.scale;
  ui.cursor.setAttribute("x", left + frame * cell);
  ui.grown.setAttribute("width", left + (frame + 1) * cell);
  ui.root.setAttribute(
    "aria-label",
    `Surprise up to frame ${frame + 1}. ` +
      answer.curves
        .map((curve) => {
          const at = curve.frames.findLastIndex((each) => each <= frame);
          return at < 0
            ? `${named(curve)}: nothing predicted yet`
            : `${named(curve)}: ${curve.possible[at].toFixed(2)} on the possible clip, ` +
                `${curve.impossible[at].toFixed(2)} on the ${odd()} one`;
        })
        .join("; ") +
      ".",
  );
}

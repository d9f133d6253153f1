// Which runs can be looked into, and the choice of two of them that stand side by side.

import { el, work } from "./dom.js";

let known = null;
const listeners = new Set();
export const CAMPS = { JEPA: "JEPA", generative: "generative", other: "neither" };

/** The runs that can be looked at as `kind`: "pictures", "moving" or "surprise". Read anew with `again`. */
export async function runsOf(kind, { again = false } = {}) {
  if (again || !known) known = work("lookable", {});
  try {
    return (await known).runs.filter((run) => run.kinds.includes(kind));
  } catch (error) {
    known = null;
    throw error;
  }
}

/** A run's name for people. */
export const titled = (run) =>
  run.comparison
    ? `${run.label}, ${run.condition}, seed ${run.seed} · ${run.comparison}`
    : run.label === run.name
      ? run.name
      : `${run.label} · ${run.name}`;

/** A box in place of runs: what is missing, and the commands that make it. */
export const missing = (sentence, ...commands) =>
  el("div.empty", {}, el("p", {}, sentence), el("pre", { tabindex: 0 }, el("code", {}, commands.join("\n"))));

const first = (runs, camp, but) =>
  runs.find((run) => run.camp === camp && run !== but) ?? runs.find((run) => run !== but) ?? but;
const pair = { left: null, right: null, encoder: { left: "", right: "" } };

/** The two runs that stand side by side in every part that shows pictures: {run, encoder} of each. */
export const chosenPair = () => ["left", "right"].map((side) => ({ run: pair[side], encoder: pair.encoder[side] }));

function choose(side, run) {
  pair[side] = run;
  pair.encoder[side] = run.encoders[0];
  for (const heard of listeners) heard();
}

/** Two selects for the pair; `heard` is called when it changes, here or in another part. */
export function pairChooser(runs, heard) {
  if (!pair.left || !runs.some((run) => run.name === pair.left.name)) {
    const left = first(runs, "JEPA");
    choose("left", left);
    choose("right", runs.find((run) => run.objective === "MAE" && run !== left) ?? first(runs, "generative", left));
  }
  const node = el("div.row.pair");
  const fill = () => node.replaceChildren(...["left", "right"].map((side) => selects(side)));
  const selects = (side) => {
    const run = pair[side];
    const which = el(
      "select",
      { onchange: (event) => choose(side, runs[event.target.selectedIndex]) },
      ...runs.map((each) => el("option", { selected: each.name === run.name }, titled(each))),
    );
    const encoder =
      run.encoders.length > 1 &&
      el(
        "label",
        {},
        "Encoder",
        el(
          "select",
          {
            onchange: (event) => {
              pair.encoder[side] = event.target.value;
              for (const each of listeners) each();
            },
          },
          ...run.encoders.map((name) => el("option", { selected: name === pair.encoder[side] }, name)),
        ),
      );
    return el("div.pair-side", {}, el("label", {}, side === "left" ? "One run" : "The other", which), encoder);
  };
  fill();
  listeners.add(() => {
    const focused = [...node.querySelectorAll("select")].indexOf(document.activeElement);
    fill();
    node.querySelectorAll("select")[focused]?.focus();
    heard();
  });
  return node;
}

/** The head of a run's card: its name in the colour of its camp, and what its loss compares. */
export const heading = (run) =>
  el(
    "header",
    {},
    el("h3", {}, titled(run)),
    el(
      "p.small",
      { class: `small ${run.camp}` },
      run.camp === "other" ? run.objective : `${CAMPS[run.camp]}, ${run.objective}`,
    ),
  );

// The number fields of /plan: how agents plan, and exact places. What the worker allows bounds them.

import { $, el } from "./dom.js";

const SETTINGS = { // label; lowest, highest and usual value where the worker does not say them
  steps: ["Steps at most", 1, 400, 100],
  num_samples: ["Candidates"],
  horizon: ["Steps imagined ahead"],
  num_iterations: ["Iterations of a search"],
  num_executed: ["Actions before the next search"],
};
const PLACES = ["start x", "start y", "goal x", "goal y"];

export class Settings {
  /** opened: what "open" answered. changed: called after a setting has another value; go: with a start and a goal. */
  constructor(opened, { changed, go }) {
    this.fields = {};
    const { bounds, usual, room } = opened;
    $("#settings").replaceChildren();
    $("#places").replaceChildren();
    for (const [name, [words, low, high, value]] of Object.entries(SETTINGS)) {
      const [min, max] = bounds[name] ?? [low, high];
      const field = el("input", { type: "number", min, max, step: 1, value: value ?? usual[name] });
      field.addEventListener("change", () => { this.mend(field); changed(); });
      this.add("#settings", name, words, field);
    }
    for (const name of PLACES) {
      const field = el("input", { type: "number", min: room.arena[0], max: room.arena[1], step: "any" });
      this.add("#places", name, name[0].toUpperCase() + name.slice(1), field);
    }
    $("#places").append(el("button.quiet", { type: "button", onclick: () => go(...this.written()) }, "Go there"));
  }

  add(where, name, words, field) {
    this.fields[name] = field;
    $(where).append(el("label", {}, words, field));
  }

  /** A whole number within its bounds; a plan has as many actions as steps are imagined. */
  mend(field) {
    const value = Math.round(field.valueAsNumber);
    field.value = Number.isFinite(value) ? Math.max(field.min, Math.min(field.max, value)) : field.defaultValue;
    const { num_executed: taken, horizon } = this.fields;
    if (+taken.value > +horizon.value) taken.value = horizon.value;
  }

  /** { steps, how }, as the worker takes them. */
  now() {
    const { steps, ...how } = Object.fromEntries(Object.keys(SETTINGS).map((name) => [name, +this.fields[name].value]));
    return { steps, how };
  }

  /** Start and goal, [x, y] each; null where a number is missing. */
  written() {
    const [startX, startY, goalX, goalY] = PLACES.map((name) => this.fields[name].valueAsNumber);
    return [[startX, startY], [goalX, goalY]].map((place) => (place.every(Number.isFinite) ? place : null));
  }

  showPlaces(places) {
    for (const [name, place] of Object.entries(places))
      ["x", "y"].forEach((axis, i) => { this.fields[`${name} ${axis}`].value = place ? place[i].toFixed(1) : ""; });
  }
}

// Who arrived how often: counts of this session, Wilson's intervals, and the log in words.

import { el, svg } from "./dom.js";

const KEPT_AS = "jepalab plan tally";
const Z = 1.959963984540054; // of a 95 % interval

/** Wilson's score interval of a rate, from 0 to 1. */
export function wilson(successes, trials) {
  const rate = successes / trials;
  const shrink = 1 + Z ** 2 / trials;
  const centre = (rate + Z ** 2 / (2 * trials)) / shrink;
  const half = (Z * Math.sqrt((rate * (1 - rate)) / trials + Z ** 2 / (4 * trials ** 2))) / shrink;
  return [Math.max(0, centre - half), Math.min(1, centre + half)];
}

/** Tries by settings, agent and group; they outlive a reload, not the tab. */
export class Tally {
  constructor() {
    this.tries = read();
  }

  /** One try: { settings, who, tone, group: "same" | "other", arrived }. */
  add(one) {
    this.tries.push(one);
    this.keep();
  }

  reset() {
    this.tries = [];
    this.keep();
  }

  keep() {
    try { sessionStorage.setItem(KEPT_AS, JSON.stringify(this.tries)); } catch { /* a full or forbidden store */ }
  }

  /** The table of these settings, agents in the given order first: [{ who, tone }]. */
  table(settings, agents) {
    const tries = this.tries.filter((one) => one.settings === settings);
    const known = new Map(agents.map(({ who, tone }) => [who, tone]));
    for (const { who, tone } of tries) if (!known.has(who)) known.set(who, tone);
    const row = ([who, tone]) => el("tr", {},
      el("th", { scope: "row", class: tone }, who), cell(tries, who, "same"), cell(tries, who, "other"));
    return el("table", {},
      el("thead", {}, el("tr", {}, el("th", { scope: "col" }, el("span.unseen", {}, "Agent")),
        el("th", { scope: "col" }, "goal in the same room"), el("th", { scope: "col" }, "goal in the other room"))),
      el("tbody", {}, [...known].map(row)));
  }
}

function read() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEPT_AS) ?? "[]");
    return Array.isArray(found) ? found : [];
  } catch { return []; }
}

/** "3 of 4 · 30 to 95 %" over a whisker. */
function cell(tries, who, group) {
  const these = tries.filter((one) => one.who === who && one.group === group);
  if (!these.length) return el("td.none", {}, "no try yet");
  const successes = these.filter((one) => one.arrived).length;
  const [low, high] = wilson(successes, these.length);
  const percent = (share) => Math.round(100 * share);
  return el("td", {}, `${successes} of ${these.length}`, " ", el("small", {}, `${percent(low)} to ${percent(high)} %`),
    whisker(successes / these.length, low, high, these[0].tone));
}

function whisker(rate, low, high, tone) {
  const x = (share) => 4 + 112 * share;
  return svg("svg", { width: 120, height: 12, viewBox: "0 0 120 12", class: tone, "aria-hidden": "true" },
    svg("line", { x1: x(0), x2: x(1), y1: 6, y2: 6, stroke: "var(--grid)", "stroke-width": 2 }),
    svg("line", { x1: x(low), x2: x(high), y1: 6, y2: 6, stroke: "currentColor", "stroke-width": 2 }),
    svg("circle", { cx: x(rate), cy: 6, r: 4, fill: "currentColor" }));
}

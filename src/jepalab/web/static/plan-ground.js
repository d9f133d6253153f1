// The ground of /plan: the agents' rooms, from where to where they go, maps, and what came of each try.

import { $, amount, el, redraw, work } from "./dom.js";
import { Play } from "./plan-play.js";
import { RoomView } from "./plan-room.js";
import { Settings } from "./plan-settings.js";
import { Tally } from "./plan-tally.js";

const FLOORS = {
  random: ["Random actions (floor)", "Learned nothing and acts by chance: what a success is worth."],
  oracle: [
    "The environment itself (ceiling)",
    "Plans in the true room, by the way that is left: what this planner can reach.",
  ],
};
const GAP = 0.02; // pixels that are kept off walls; the worker asks for a little less

const floors = () => Object.keys(FLOORS).filter((name) => $(`#${name}`).checked);
const mapKind = () => $("input[name=map]:checked").value;

export class Ground {
  constructor() {
    this.tally = new Tally();
    Object.assign(this, { views: [], start: null, goal: null, cursor: null, play: null, map: null, number: 0 });
    $("#again").addEventListener("click", () => this.goal && this.send(this.goal));
    $("#draw").addEventListener("click", () => this.sendAnywhere());
    $("#stop").addEventListener("click", () => this.stop());
    $("#reset").addEventListener("click", () => { this.tally.reset(); this.showTally(); });
    for (const radio of document.querySelectorAll("input[name=map]"))
      radio.addEventListener("change", () => this.showMaps());
    for (const name of Object.keys(FLOORS)) $(`#${name}`).addEventListener("change", () => this.furnish());
    redraw(() => { for (const view of this.views) view.recolour(); });
  }

  say(words, isBad = false) {
    if ($("#playing").textContent !== words) $("#playing").textContent = words;
    $("#playing").classList.toggle("bad", isBad);
  }

  /** What "open" answered becomes what is shown. */
  enter(opened) {
    const hands = { changed: () => this.showTally(), go: (start, goal) => this.goAsWritten(start, goal) };
    this.settings ??= new Settings(opened, hands);
    Object.assign(this, { opened, start: opened.room.start, goal: null, cursor: null });
    this.furnish();
  }

  /** One view for each agent: the models, then floor and ceiling if they are asked for. */
  furnish() {
    this.stop();
    const models = this.opened.runs.map((run, index) => this.viewOfRun(run, index));
    const scales = floors().map((name) => this.viewOfFloor(name));
    this.views = [...models, ...scales];
    $("#stages").replaceChildren(...models.map((view) => view.element));
    $("#scales").replaceChildren(...scales.map((view) => view.element));
    this.busy(false);
    this.showPlaces();
    this.showMaps();
    this.showTally();
    this.say("Click where they should go.");
  }

  viewOfRun(run, index) {
    const letter = "AB"[index];
    const trust = `${run.objective}, ${run.step} steps. A linear probe reads positions (R² ${amount(run.r2)}): ` +
      `off by ${amount(run.off, 2)} px on real frames, by ${amount(run.off_ahead, 2)} px imagined ${run.ahead} steps ahead.`;
    const imagines = run.draws_itself ? "plan's end, by its decoder" : "plan's end: nearest real frame";
    const title = [el(`span.badge.${run.camp}`, {}, run.camp), `${letter} · ${run.name}`];
    const who = `${letter}, ${run.name}`, counted = `${run.name} (${run.step} steps)`;
    return new RoomView({ who, camp: run.camp, counted, title, trust, imagines }, this.hands());
  }

  viewOfFloor(name) {
    const [who, trust] = FLOORS[name], plain = { who, counted: who, title: who };
    return new RoomView({ ...plain, camp: "other", trust, imagines: null }, this.hands());
  }

  /** Start and goal, on all canvases and in the number fields. */
  showPlaces() {
    const { opened, start, goal } = this;
    for (const view of this.views) view.show(opened.room, { start, goal, radius: opened.radius });
    this.settings.showPlaces({ start, goal });
  }

  /** The nearest place in the arena. */
  within(place) {
    const [low, high] = this.opened.room.arena;
    return place.map((value) => Math.max(low + GAP, Math.min(high - GAP, value)));
  }

  /** Why nobody can go from this start to this goal; null where somebody may. */
  refusal(start, goal) {
    const [low, high] = this.opened.room.arena, { radius } = this.opened;
    const isOutside = (place) => place.some((value) => !(value >= low + GAP && value <= high - GAP));
    for (const [what, place] of [["start", start], ["goal", goal]]) {
      if (isOutside(place)) return `That ${what} lies outside the rooms; choose a place from ${low} to ${high} pixels.`;
      if (!this.isFree(place)) return `That ${what} lies in the wall; choose a free place.`;
    }
    const isNear = Math.hypot(goal[0] - start[0], goal[1] - start[1]) < radius;
    return isNear ? `That goal lies within ${radius} pixels of the start; choose one farther away.` : null;
  }

  isFree([x, y], gap = GAP) {
    return !this.opened.room.walls.some(([left, top, right, bottom]) =>
      x > left - gap && x < right + gap && y > top - gap && y < bottom + gap);
  }

  /** What can be done on a canvas. */
  hands() {
    const ghost = (place, isCursor) => { for (const view of this.views) view.point(place, isCursor); };
    return {
      goal: (place) => this.send(this.within(place)),
      start: (place) => this.moveStart(this.within(place)),
      drag: (place) => { for (const view of this.views) view.lift(this.within(place)); },
      point: (place) => ghost(place && this.within(place), false),
      move: (dx, dy) => {
        const [x, y] = this.cursor ?? this.goal ?? this.start;
        this.cursor = this.within([x + dx, y + dy]);
        ghost(this.cursor, true);
        const words = this.cursor.map(Math.round);
        $("#cursor").textContent = `x ${words[0]}, y ${words[1]}, ${this.isFree(this.cursor) ? "free" : "wall"}`;
      },
      enter: () => { if (this.cursor) this.send(this.cursor); },
      put: () => { if (this.cursor) this.moveStart(this.cursor); },
      stop: () => this.stop(),
    };
  }

  moveStart(place) {
    this.stop();
    if (!this.isFree(place)) {
      this.showPlaces();
      return this.say("That start lies in the wall; choose a free place.", true);
    }
    Object.assign(this, { start: place, goal: null });
    for (const view of this.views) view.clear();
    this.busy(false);
    this.showPlaces();
    this.showMaps();
    this.say("The start has moved. Click where they should go.");
  }

  goAsWritten(start, goal) {
    if (!start || !goal) return this.say("Wanted four numbers, start and goal in pixels.", true);
    this.send(goal, start);
  }

  /** A start and a goal anywhere in the free rooms, farther apart than the radius of success. */
  sendAnywhere() {
    const [low, high] = this.opened.room.arena;
    const somewhere = () => {
      for (;;) {
        const place = [0, 0].map(() => low + 3 + Math.random() * (high - low - 6));
        if (this.isFree(place, 3)) return place;
      }
    };
    const start = somewhere();
    let goal = somewhere();
    while (Math.hypot(goal[0] - start[0], goal[1] - start[1]) < 2 * this.opened.radius) goal = somewhere();
    this.send(goal, start);
  }

  /** Which models, in which room, to where. */
  where(goal) {
    return { runs: this.opened.runs.map((run) => run.name), seed: this.opened.room.seed, goal };
  }

  /** Sends everybody from the start to this goal. */
  async send(goal, start = this.start) {
    this.stop();
    const problem = this.refusal(start, goal);
    if (problem) return this.say(problem, true);
    Object.assign(this, { start, goal });
    this.number += 1;
    for (const view of this.views) view.clear();
    this.showPlaces();
    const { views } = this, settings = this.settings.now();
    const asked = {
      ...this.where(goal), start, floors: floors(), steps: settings.steps, how: settings.how, luck: this.number,
      pictures: true,
    };
    let about = null;
    const play = (this.play = new Play(asked, (news) => {
      if (!news) this.say("Waiting for other work to end …");
      else if (news.loading) this.say(`Opening ${news.loading} …`);
      else if (news.agent === undefined) this.begin((about = news));
      else {
        views[news.agent].push(news);
        this.say(aim(about));
      }
    }));
    this.busy(true);
    try {
      const agents = await play.run();
      if (agents) await Promise.all(views.map((view) => view.shown()));
      if (agents && this.play === play) this.conclude(agents, about, settings);
    } catch (error) {
      if (this.play === play) this.say(error.message, true);
    } finally {
      if (this.play === play) {
        this.play = null;
        this.busy(false);
      }
    }
  }

  /** The first that is told: how far it is, and the goal as the models see it. */
  begin(about) {
    this.say(aim(about));
    for (const view of this.views) view.push({ path: [], goal: about.goal, step: 0, left: about.left });
    this.showMaps();
  }

  busy(isOn) {
    $("#stop").disabled = !isOn;
    $("#again").disabled = !this.goal;
  }

  /** Stops at once; what was under way counts for nobody. */
  stop() {
    if (!this.play) return;
    this.play.stop();
    this.play = null;
    for (const view of this.views) view.drop();
    this.busy(false);
    this.say("Stopped; this try counts for nobody.");
  }

  /** The end of a try: outcomes on the canvases, in the tally and in the log. */
  conclude(agents, about, settings) {
    const group = about.same_room ? "same" : "other";
    const said = agents.map(({ has_arrived: arrived, step, left }, i) => {
      const view = this.views[i], words = arrived ? `arrived after ${step} steps` : `not there after ${step} steps`;
      view.conclude({ arrived, words });
      this.tally.add({ settings: JSON.stringify(settings), who: view.counted, tone: view.camp, group, arrived });
      return `${view.who}: ${words}${arrived ? "" : `, ${amount(left)} px short`}`;
    });
    this.showTally();
    const title = `${about.same_room ? "Same" : "Other"} room, ${amount(about.left)} px. `;
    $("#log").prepend(el("p", {}, el("b", {}, title), said.map((words) => [el("br"), words])));
    this.say("Click another goal, or play this one again with other luck.");
  }

  /** The map that is switched on, for the goal; asked for once a goal. */
  async showMaps() {
    const { goal } = this, kind = mapKind();
    if (kind === "none" || !goal) {
      for (const view of this.views) view.showMap(null);
      return;
    }
    const given = { what: "map", ...this.where(goal) };
    const key = JSON.stringify(given);
    if (this.map?.key !== key) this.map = { key, answer: work("plan", given) };
    try {
      const answer = await this.map.answer;
      if (this.map.key !== key || mapKind() !== kind) return;
      this.views.forEach((view, i) => view.showMap(mapOf(kind, answer, i, view)));
    } catch (error) {
      if (this.map.key === key) this.map = null;
      this.say(error.message, true);
    }
  }

  /** The tally under the present settings. */
  showTally() {
    const settings = this.settings.now();
    $("#tally-steps").textContent = settings.steps;
    const agents = this.views.map((view) => ({ who: view.counted, tone: view.camp }));
    $("#tally").replaceChildren(this.tally.table(JSON.stringify(settings), agents));
  }
}

const aim = (about) => `A goal in the ${about.same_room ? "same" : "other"} room, ${amount(about.left)} px to go.`;

/** The map of one view: of its own embedding, or the true way for all; floors have no embedding. */
function mapOf(kind, answer, index, view) {
  if (kind === "way") return { rows: answer.way, camp: "way", words: "on the way around the wall" };
  const own = answer.maps[index];
  const words = own && `rank correlation with the true way ${amount(own.rank, 2)}`;
  return own ? { rows: own.rows, camp: view.camp, words } : null;
}

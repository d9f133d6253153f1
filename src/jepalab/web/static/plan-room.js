// One agent's room: its canvas and what is said of it, news shown in their order, pointer and keyboard.

import { amount, el } from "./dom.js";
import { MARGIN, paint } from "./plan-drawing.js";
import { paintFrame } from "./plan-map.js";

const GRASP = 4; // pixels of the model's picture around the start within which it can be dragged
const PACE = 30; // steps a second that are shown at least
const CATCH_UP_MS = 600; // in which everything that has come is shown
const STEP = 1.5, LEAP = 6; // pixels that an arrow key moves the cursor, without and with Shift
const FRAMES = ["now", "picture", "goal"];
const still = matchMedia("(prefers-reduced-motion: reduce)");
const fact = (value, words) => el("span", {}, el("b", {}, value), words);
const spot = ([x, y]) => `x ${Math.round(x)}, y ${Math.round(y)}`;

export class RoomView {
  /** who, in words; counted, as the tally names it; imagines, what the picture of a plan's end is, null without
   *  pictures. hands: { goal, start, drag, point, move, enter, put, stop }; the first four are given a place in pixels
   *  of the model's picture, point also null. */
  constructor({ who, camp, counted, title, trust, imagines }, hands) {
    Object.assign(this, { who, camp, counted, imagines, hands, waiting: [] });
    this.canvas = el("canvas", { role: "img" });
    this.stage = el("div.room", { tabindex: 0, role: "application", "aria-label": `Room of ${who}` }, this.canvas);
    this.stage.setAttribute("aria-roledescription", "room");
    this.stage.setAttribute("aria-describedby", "keys");
    this.legend = el("p.legend", { hidden: true });
    this.facts = el("p.facts");
    this.plan = el("p.small.plan");
    this.frames = {};
    const words = ["now", imagines, "goal"];
    const strip = imagines ? el("div.strip", {}, FRAMES.map((name, i) => this.frame(name, words[i]))) : null;
    const room = el("div", {}, this.stage, this.legend, this.facts, this.plan);
    this.element = el("article.card.player", {},
      el("h2", {}, title), el("div.view", {}, room, strip), el("p.small.trust", {}, trust));
    this.clear();
    this.listen();
  }

  frame(name, words) {
    const facts = { role: "img", "aria-label": `${this.who}, frame: ${words}`, width: 1, height: 1 };
    this.frames[name] = el("canvas", facts);
    return el("figure", {}, this.frames[name], el("figcaption", {}, words));
  }

  /** Back to the start: nothing happened yet. */
  clear() {
    Object.assign(this, { path: [], at: 0, queue: [], imagined: [], cost: null, last: null, outcome: null });
    for (const canvas of Object.values(this.frames)) canvas.width = canvas.height = 1;
    this.facts.replaceChildren();
    this.plan.textContent = "";
  }

  /** The room, start and goal. */
  show(room, { start, goal, radius }) {
    Object.assign(this, { room, start, goal, radius, walls: room.walls });
    this.draw();
  }

  /** A map of costs { rows, camp, words }, or null. */
  showMap(map) {
    this.map = map && { ...map, picture: null };
    this.legend.hidden = !map;
    if (map) this.legend.replaceChildren("near", el(`span.ramp.${map.camp}`), "far", el("span", {}, map.words));
    this.draw();
  }

  /** The same in the colours of now, and as wide as now. */
  recolour() {
    if (this.map) this.map.picture = null;
    this.draw();
  }

  /** A place under the pointer or the cursor, or none. */
  point(place, isCursor) {
    Object.assign(this, { ghost: place, hasCursor: isCursor });
    this.draw();
  }

  /** The start while it is dragged. */
  lift(place) {
    Object.assign(this, { start: place, path: [], at: 0, imagined: [] });
    this.draw();
  }

  // ---- News ------------------------------------------------------------------------------------------------------

  /** What came from the worker; shown when what came before has been. */
  push(news) {
    this.queue.push(news);
    this.kick();
  }

  /** What came and is not shown yet will not be. */
  drop() {
    this.queue = [];
    this.path.length = Math.min(this.path.length, Math.ceil(this.at));
  }

  /** Resolves when everything that came has been shown. */
  shown() {
    if (!this.queue.length && this.at >= this.path.length) return Promise.resolve();
    return new Promise((resolve) => {
      this.waiting.push(resolve);
      this.kick();
    });
  }

  /** Says how it ended. */
  conclude(outcome) {
    this.outcome = outcome;
    this.tell();
    this.draw();
  }

  /** Begins to show what waits: step by step, or at once where motion is not wanted or not seen. */
  kick() {
    if (still.matches || document.hidden) {
      while (this.queue.length) this.take();
      this.at = this.path.length;
      this.draw();
      this.settle();
    } else if (!this.ticks) {
      this.ticks = true;
      this.before = performance.now();
      requestAnimationFrame((now) => this.tick(now));
    }
  }

  tick(now) {
    const left = this.path.length - this.at + this.queue.reduce((sum, news) => sum + news.path.length, 0);
    let steps = (Math.max(0, now - this.before) / 1000) * Math.max(PACE, (1000 * left) / CATCH_UP_MS);
    this.before = now;
    while (steps > 0) {
      const part = Math.min(steps, this.path.length - this.at);
      this.at += part;
      steps -= part;
      if (this.at < this.path.length) break;
      if (!this.queue.length) break;
      this.take();
    }
    this.draw();
    this.ticks = this.at < this.path.length || this.queue.length > 0;
    if (this.ticks) requestAnimationFrame((next) => this.tick(next));
    else this.settle();
  }

  settle() {
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  /** The next piece of news becomes what is shown. */
  take() {
    const news = this.queue.shift();
    if (news.imagined) Object.assign(this, { imagined: news.imagined, searchedAt: this.path.at(-1) ?? this.start });
    this.path.push(...news.path);
    this.cost = news.cost ?? this.cost;
    this.walls = news.walls ?? this.walls;
    this.last = news;
    for (const name of FRAMES)
      if (news[name] && this.frames[name]) paintFrame(this.frames[name], news[name], this.room.size);
    this.tell();
  }

  // ---- What is seen and said -------------------------------------------------------------------------------------

  /** The places it went through, up to where it is shown. */
  gone() {
    const whole = [this.start, ...this.path], number = Math.floor(this.at), share = this.at - number;
    const gone = whole.slice(0, number + 1), here = gone.at(-1), next = whole[number + 1];
    return next && share > 0 ? [...gone, here.map((value, axis) => value + share * (next[axis] - value))] : gone;
  }

  draw() {
    if (!this.room) return;
    this.zoom = paint(this.canvas, this.stage.clientWidth || 300, this);
    this.canvas.setAttribute("aria-label", this.describe());
  }

  /** The lines of facts below the canvas. */
  tell() {
    const { last, outcome, cost } = this;
    this.facts.replaceChildren(
      ...(last ? [fact(last.step, " steps"), fact(amount(last.left), " px left")] : []),
      ...(outcome ? [el(outcome.arrived ? "span.arrived" : "span.missed", {}, outcome.words)] : []));
    const share = `Its plan ends at ${Math.round(100 * cost)} % of the start's distance`;
    this.plan.textContent = cost === null ? "" : `${share}${this.imagines ? ", as embedded" : ""}.`;
  }

  /** The canvas in words. */
  describe() {
    const { last, outcome, goal } = this;
    const parts = [`${this.who}. Start at ${spot(this.start)}.`, goal ? `Goal at ${spot(goal)}.` : "No goal yet."];
    if (last) {
      const here = spot(this.path.at(-1) ?? this.start);
      parts.push(`Agent at ${here} after ${last.step} steps, ${amount(last.left)} pixels left.`);
    }
    const end = this.imagined.at(-1);
    if (end && !outcome) parts.push(`It imagines that its plan ends at ${spot(end)}.`);
    if (outcome) parts.push(`Outcome: ${outcome.words}.`);
    return parts.join(" ");
  }

  // ---- Hands -----------------------------------------------------------------------------------------------------

  /** Where an event is, in pixels of the model's picture. */
  placeOf(event) {
    const box = this.canvas.getBoundingClientRect(), [low] = this.room.arena;
    return [event.clientX - box.left, event.clientY - box.top].map((value) => value / this.zoom + low - MARGIN);
  }

  isAtStart(event) {
    const [x, y] = this.placeOf(event);
    return Math.hypot(x - this.start[0], y - this.start[1]) < GRASP;
  }

  listen() {
    const { canvas, stage, hands } = this;
    let drags = false, wasDragged = false;
    canvas.addEventListener("touchstart", (event) => {
      if (event.touches.length === 1 && this.isAtStart(event.touches[0])) event.preventDefault(); // no scrolling
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      wasDragged = false;
      drags = event.button === 0 && !event.shiftKey && this.isAtStart(event);
      if (drags) canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      wasDragged ||= drags;
      if (drags) hands.drag(this.placeOf(event));
      else if (event.pointerType === "mouse") hands.point(this.placeOf(event));
      canvas.style.cursor = drags || this.isAtStart(event) ? "grab" : "crosshair";
    });
    canvas.addEventListener("pointerup", (event) => {
      if (drags && wasDragged) hands.start(this.placeOf(event));
      drags = false;
    });
    canvas.addEventListener("pointercancel", () => { drags = false; });
    canvas.addEventListener("pointerleave", () => hands.point(null));
    canvas.addEventListener("click", (event) => {
      if (!wasDragged) (event.shiftKey ? hands.start : hands.goal)(this.placeOf(event));
    });
    stage.addEventListener("keydown", (event) => this.press(event));
    stage.addEventListener("blur", () => hands.point(null));
  }

  press(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { hands } = this, far = event.shiftKey ? LEAP : STEP;
    const does = {
      ArrowLeft: () => hands.move(-far, 0),
      ArrowRight: () => hands.move(far, 0),
      ArrowUp: () => hands.move(0, -far),
      ArrowDown: () => hands.move(0, far),
      Enter: hands.enter,
      s: hands.put,
      S: hands.put,
      Escape: hands.stop,
    }[event.key];
    if (!does) return;
    event.preventDefault();
    does();
  }
}

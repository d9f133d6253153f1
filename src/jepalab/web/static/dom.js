// Small things every page of the lab needs: elements, lists kept in place, numbers, questions to the server, streams.

/** An element. `facts` sets attributes; a function is a listener ("onclick"), true an empty attribute, false or null
 *  none. Children are nodes or text; text is never markup. */
export function el(tag, facts = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const made = document.createElement(name || "div");
  if (classes.length) made.className = classes.join(" ");
  for (const [key, value] of Object.entries(facts)) {
    if (typeof value === "function") made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) made.setAttribute(key, value);
  }
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return made;
}

/** An SVG element, likewise. */
export function svg(tag, facts = {}, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(facts)) if (value !== null && value !== false) made.setAttribute(key, value);
  made.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return made;
}

export const $ = (selector, within = document) => within.querySelector(selector);

/** Writes a text where it is another than before: what stays the same is not spoken again, and a selection stays. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

const residents = new WeakMap();

/** Shows items in a place, an element each, in their order. An item that was there keeps its element, and so its
 *  focus. `make(item)` gives { node, update(item), gone() }; update is called for every item, in the page. */
export function keyed(place, items, keyOf, make) {
  const before = residents.get(place) ?? new Map(), now = new Map(), focused = document.activeElement;
  for (const item of items) now.set(keyOf(item), before.get(keyOf(item)) ?? make(item));
  for (const [key, { node, gone }] of before) {
    if (now.has(key)) continue;
    gone?.();
    node.remove();
  }
  let next = place.firstChild;
  for (const { node } of now.values()) {
    if (node === next) next = next.nextSibling;
    else place.insertBefore(node, next);
  }
  if (focused !== document.activeElement && place.contains(focused)) focused.focus();
  residents.set(place, now);
  for (const item of items) now.get(keyOf(item)).update?.(item);
}

/** 12.3 M, 0.123, −0.5; a dash for nothing. */
export function amount(value, digits = 3) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  for (const [power, unit] of [[1e15, "P"], [1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]])
    if (size >= power) return minus(trimmed(value / power, digits)) + " " + unit;
  return minus(trimmed(value, digits));
}

const trimmed = (value, digits) => String(Number(value.toPrecision(digits)));
const minus = (text) => text.replace("-", "−");

/** 75 s, 4 min, 2.1 h. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return "–";
  if (seconds < 100) return `${Math.round(seconds)} s`;
  return seconds < 6000 ? `${Math.round(seconds / 60)} min` : `${(seconds / 3600).toFixed(1)} h`;
}

/** Durations along an axis, in one unit: 0.5 s, 150 s, 12 min, 2.5 h. */
export function durations(ticks) {
  const most = Math.max(...ticks.map(Math.abs));
  const [each, unit] = most <= 600 ? [1, "s"] : most < 6000 ? [60, "min"] : [3600, "h"];
  const digits = unit === "s" ? (most < 10 ? 1 : 0) : 2;
  return ticks.map((tick) => `${minus(String(Number((tick / each).toFixed(digits))))} ${unit}`);
}

/** JSON from the server; an Error with its sentence where it refuses. */
export async function ask(address, facts = {}) {
  const response = await fetch(address, facts);
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(body.error ?? `The server answered ${response.status}.`);
  return body;
}

/** Work for the worker: resolves with its answer. `tell` hears ("waiting" | "began" | "progress", value); aborting the
 *  signal cancels the work at the server too. Rejects with an Error whose message is a sentence for the reader. */
export async function work(task, given, { tell = () => {}, signal } = {}) {
  const { job } = await ask("/api/work", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ task, arguments: given }),
  });
  return new Promise((resolve, reject) => {
    const stream = new EventSource(`/api/work/${job}`);
    const end = (settle, value) => { stream.close(); signal?.removeEventListener("abort", cancel); settle(value); };
    const cancel = () => {
      fetch(`/api/work/${job}`, { method: "DELETE", headers: { "content-type": "application/json" } }).catch(() => {});
      end(reject, new Error("Cancelled."));
    };
    if (signal?.aborted) return cancel();
    signal?.addEventListener("abort", cancel);
    for (const name of ["waiting", "began", "progress"])
      stream.addEventListener(name, (event) => tell(name, JSON.parse(event.data)));
    stream.addEventListener("done", (event) => end(resolve, JSON.parse(event.data)));
    stream.addEventListener("failed", (event) => end(reject, new Error(JSON.parse(event.data))));
    stream.addEventListener("cancelled", () => end(reject, new Error("Cancelled.")));
    stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) end(reject, new Error("The lab has ended.")); };
  });
}

/** A stream of news, closed while the page is hidden, as a browser holds only six connections to one server.
 *  `address()` is asked at each opening; hears: { event name: (value) => … }; `say(words)` hears what is wrong with the
 *  connection, and "" once it is well. Returns { open }, which opens it anew. */
export function live(address, hears, say = () => {}) {
  let stream = null, again = 0;
  const close = () => {
    clearTimeout(again);
    stream?.close();
    stream = null;
  };
  const open = () => {
    close();
    if (document.hidden) return;
    stream = new EventSource(address());
    for (const [name, hear] of Object.entries(hears))
      stream.addEventListener(name, (event) => hear(JSON.parse(event.data)));
    stream.onopen = () => say("");
    stream.onerror = () => {
      const isRefused = stream.readyState === EventSource.CLOSED;
      close();
      if (isRefused) return say("The lab no longer answers this page; load it again.");
      say("The lab does not answer; trying again …");
      again = setTimeout(open, 2000);
    };
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  open();
  return { open };
}

/** A button that starts work and becomes its cancel button while it runs, with a line that says how it goes.
 *  `start(signal, say)` does the work; errors land in the line. Returns { button, line, press }. */
export function workButton(words, start) {
  const line = el("p.state", { role: "status" });
  let stop = null;
  const press = async () => {
    if (stop) return stop.abort();
    stop = new AbortController();
    button.textContent = "Cancel";
    button.classList.add("cancel");
    line.classList.remove("bad");
    line.textContent = "Starting …";
    try {
      const last = await start(stop.signal, (text) => { line.textContent = text; });
      line.textContent = last ?? "";
    } catch (error) {
      line.textContent = error.message;
      line.classList.toggle("bad", error.message !== "Cancelled.");
    } finally {
      stop = null;
      button.textContent = words;
      button.classList.remove("cancel");
    }
  };
  const button = el("button", { type: "button", onclick: press }, words);
  return { button, line, press };
}

/** The value of a colour of the style sheet, as in colour("blue"); follows light and dark. */
export const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** Calls `draw` now and whenever light turns dark, or the window changes its width. */
export function redraw(draw) {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  let last = innerWidth;
  addEventListener("resize", () => { if (innerWidth !== last) { last = innerWidth; draw(); } });
  draw();
}

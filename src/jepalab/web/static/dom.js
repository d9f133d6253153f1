// Small things every page of the lab needs: elements, numbers, questions to the server, live streams.

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
      fetch(`/api/work/${job}`, { method: "DELETE", headers: { "content-type": "application/json" } });
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

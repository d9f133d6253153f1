// One run, live: its curves, collapse meters, what its loss compares, its scores, and how to repeat it.

import { $, amount, ask, duration, el, redraw, work, workButton } from "./dom.js";
import { auditView } from "./audit_view.js";
import { drawCurves } from "./curves.js";
import { meterCard } from "./meters.js";
import { PRICES, Records } from "./records.js";

const name = new URLSearchParams(location.search).get("name") ?? "";
const records = new Records();
const HIDDEN = new Set(["compares", "weights", "words", "packages", "error"]);
let facts = null, alarm = null;

/** One chart a quantity: the weighted sum first, then terms, meters and scores. */
function charts() {
  const found = records.quantities([name]);
  if (Object.keys(found).filter((key) => key.startsWith("loss/")).length === 1) delete found.total;
  const price = $("#price").value, log = $("#log").checked;
  const places = Object.keys(found).map(() => el("div"));
  $("#charts").replaceChildren(...Object.values(found).map((label, i) => el("figure", {}, el("h3", {}, label), places[i])));
  Object.entries(found).forEach(([quantity, label], i) => {
    const points = records.points(facts.entry, quantity, price);
    const isLoss = quantity === "total" || quantity.startsWith("loss/");
    const axes = { x: PRICES[price], y: label.split(": ").at(-1), log: log && isLoss, seconds: price === "seconds" };
    drawCurves(places[i], [{ name: label, camp: facts.entry.camp, points }], axes, { height: 200 });
  });
  const meters = records.meters(name);
  $("#meters").hidden = !meters;
  if (meters) $("#meter-cards").replaceChildren(meterCard(facts.entry, records.points(facts.entry, "meters/std", "step"), meters, alarm));
}

let due = 0;
const schedule = () => { if (!due) due = requestAnimationFrame(() => { due = 0; charts(); }); };

function words(entry) {
  const far = entry.steps ? `step ${amount(entry.step)} of ${amount(entry.steps)}` : "";
  const last = entry.status === "lost" && entry.beat ? `, last heard of ${duration(Date.now() / 1000 - entry.beat)} ago` : "";
  return [entry.status + last, far].filter(Boolean).join(" · ");
}

function follow() {
  const stream = new EventSource(`/api/live?run=${encodeURIComponent(name)}`);
  stream.onopen = () => records.byRun.clear();
  stream.addEventListener("records", (event) => { records.add(name, JSON.parse(event.data).records); schedule(); });
  stream.addEventListener("shelf", (event) => {
    const entry = JSON.parse(event.data).runs.find((run) => run.name === name);
    if (!entry) return;
    const hasEnded = facts.entry.status === "running" && entry.status !== "running";
    facts.entry = entry;
    $("#live").textContent = words(entry);
    if (hasEnded) describe();
  });
  stream.onerror = () => { $("#live").textContent = "The lab does not answer; trying again …"; };
}

const table = (caption, heads, rows) =>
  el("table", {}, el("caption.unseen", {}, caption),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell))))));

function compares() {
  const { compares: spaces, weights } = facts.entry;
  const rows = Object.keys(weights).map((term) => [term, spaces[term] ?? "a statistic, no target", amount(weights[term])]);
  $("#compares").replaceChildren(rows.length
    ? table("Terms of the loss", ["Term", "Compares in the space of", "Weight"], rows)
    : el("p", {}, "This run was recorded before terms were written down."));
  if (!facts.entry.objective) return;
  const { button, line } = workButton("Audit this objective", async (signal, say) => {
    const found = await work("audit", { objective: facts.entry.objective }, { signal, tell: () => say("Running its smallest instance under the audit …") });
    showAudit(found);
    return `Verdict: ${found.verdict}.`;
  });
  $("#audit-row").replaceChildren(button, line);
}

function showAudit(found) {
  $("#audit").replaceChildren(...auditView(found));
}

function describe() {
  ask(`/api/run?name=${encodeURIComponent(name)}`).then((found) => { facts = found; show(); });
}

function show() {
  $("#live").textContent = words(facts.entry);
  $("#trouble").textContent = facts.run.error ?? facts.entry.error ?? "";
  const scores = Object.entries(facts.scores).filter(([, value]) => typeof value === "number");
  $("#with-scores").hidden = !scores.length;
  $("#scores").replaceChildren(table("Scores", ["Score", "Value"], scores.map(([key, value]) => [key.replaceAll("_", " "), amount(value, 4)])));
  const rows = Object.entries(facts.run).filter(([key]) => !HIDDEN.has(key));
  $("#facts").replaceChildren(...rows.flatMap(([key, value]) => [
    el("dt", {}, key.replaceAll("_", " ")),
    el("dd", {}, typeof value === "object" ? el("code", {}, JSON.stringify(value)) : key === "command" ? el("code", {}, value) : String(value)),
  ]));
  compares();
}

try {
  [facts, alarm] = await Promise.all([ask(`/api/run?name=${encodeURIComponent(name)}`), ask("/api/alarm")]);
  $("#name").textContent = name;
  document.title = `${name} · jepalab`;
  $("#price").replaceChildren(...Object.entries(PRICES).map(([value, label]) => el("option", { value }, label)));
  $("#found").hidden = false;
  show();
  follow();
  for (const id of ["#price", "#log"]) $(id).addEventListener("change", charts);
  redraw(charts);
} catch (error) {
  $("#live").textContent = "";
  $("#trouble").textContent = error.message;
}
document.body.dataset.ready = "true";

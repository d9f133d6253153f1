// One run, live: its curves, collapse meters, what its loss compares, its scores, and how to repeat it.

import { $, amount, ask, duration, el, keyed, live, redraw, setText, work, workButton } from "./dom.js";
import { auditView } from "./audit_view.js";
import { clearCurves, drawCurves } from "./curves.js";
import { meterCard } from "./meters.js";
import { PRICES, Records } from "./records.js";

const name = new URLSearchParams(location.search).get("name") ?? "";
const records = new Records();
const HIDDEN = new Set(["compares", "weights", "words", "packages", "error"]);
let facts = null, alarm = null, at = 0;

/** One chart a quantity: the weighted sum first, then terms, meters and scores. */
function charts() {
  const found = records.quantities([name]);
  const price = $("#price").value, log = $("#log").checked;
  const terms = Object.keys(found).filter((key) => key.startsWith("loss/")).length;
  const hasSum = terms !== 1 && (!terms || records.points(facts.entry, "total", "step").length);
  if (!hasSum) delete found.total;
  const items = Object.entries(found).map(([quantity, label]) => ({ quantity, label, price, log }));
  keyed($("#charts"), items, ({ quantity }) => quantity, chart);
  const meters = records.meters(name);
  $("#meters").hidden = !meters;
  const spread = records.points(facts.entry, "meters/std", "step");
  const measured = meters ? [{ run: facts.entry, spread, meters, alarm }] : [];
  keyed($("#meter-cards"), measured, ({ run }) => run.name, meterCard);
}

function chart({ quantity, label }) {
  const place = el("div"), isLoss = quantity === "total" || quantity.startsWith("loss/");
  const update = ({ price, log }) => {
    const axes = { x: PRICES[price], y: label.split(": ").at(-1), log: log && isLoss, seconds: price === "seconds" };
    const points = records.points(facts.entry, quantity, price);
    drawCurves(place, [{ name: label, camp: facts.entry.camp, points }], axes, { height: 200 });
  };
  return { node: el("figure", {}, el("h3", {}, label), place), update, gone: () => clearCurves(place) };
}

let due = 0;
const schedule = () => { if (!due) due = requestAnimationFrame(() => { due = 0; charts(); }); };

/** What has become of the run, which is spoken when it changes, and beside it how far it is, which is not. */
function say({ status, steps, step, age }) {
  const isLost = status === "lost" && Number.isFinite(age);
  const far = [
    isLost ? `last heard of ${duration(age + (performance.now() - at) / 1000)} ago` : "",
    steps ? `step ${amount(step)} of ${amount(steps)}` : "",
  ];
  setText($("#live"), status);
  setText($("#far"), far.filter(Boolean).map((words) => ` · ${words}`).join(""));
}

function follow() {
  const grow = (news) => { records.add(news); schedule(); };
  const beat = () => { if (facts.entry.status === "lost") say(facts.entry); };
  live(() => records.address([name]), { records: grow, shelf: take, beat }, connection);
}

/** The list of runs as it is now. */
function take({ runs }) {
  const entry = runs.find((run) => run.name === name);
  if (!entry) return;
  const hasEnded = facts.entry.status === "running" && entry.status !== "running";
  facts.entry = entry;
  at = performance.now();
  say(entry);
  if (hasEnded) describe();
}

/** Says what is wrong with the connection, or again what the run does. */
function connection(trouble) {
  if (!trouble) return say(facts.entry);
  setText($("#live"), trouble);
  setText($("#far"), "");
}

const table = (caption, heads, rows) =>
  el("table", {}, el("caption.unseen", {}, caption),
    el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
    el("tbody", {}, rows.map((cells) => el("tr", {}, cells.map((cell) => el("td", {}, cell))))));

function compares() {
  const { compares: spaces, weights } = facts.entry;
  const terms = new Set([...Object.keys(weights), ...Object.keys(spaces)]);
  const rows = [...terms].map((term) => [term, spaces[term] ?? "a statistic, no target", amount(weights[term])]);
  $("#compares").replaceChildren(rows.length
    ? table("Terms of the loss", ["Term", "Compares in the space of", "Weight"], rows)
    : el("p", {}, "This run was recorded before terms were written down."));
  if (!facts.entry.objective || $("#audit-row").childElementCount) return;
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

/** Reads the run anew. */
async function describe() {
  try {
    facts = await ask(`/api/run?name=${encodeURIComponent(name)}`);
    at = performance.now();
    show();
    charts();
  } catch (error) {
    setText($("#trouble"), error.message);
  }
}

function show() {
  say(facts.entry);
  setText($("#trouble"), facts.run.error ?? facts.entry.error ?? "");
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
  at = performance.now();
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

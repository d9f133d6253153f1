// One comparison: the answer, the contrasts with their verdicts, every score by arm and condition, the report.

import { $, amount, ask, el } from "./dom.js";

const name = new URLSearchParams(location.search).get("name") ?? "";
const CAMPS = { J: "JEPA", G: "generative" };
let results = null;

const head = (words) => el("th", { scope: "col" }, words);
const signed = (value) => (value > 0 ? "+" : "") + amount(value, 2);

function contrasts() {
  const rows = results.contrasts.map((found) => el("tr", {},
    el("td", {}, el("strong", {}, found.name), el("small", {}, ` ${found.is_primary ? "" : "(exploratory) "}${found.because ?? ""}`)),
    el("td", {}, interval(found)),
    el("td", {}, String(found.num_seeds ?? "–")),
    el("td", {}, el(`strong.verdict.${String(found.verdict).replaceAll(" ", "-")}`, {}, found.verdict)),
    el("td.wide-only", {}, found.source ?? "")));
  $("#contrasts").replaceChildren(el("table", {}, el("caption.unseen", {}, "Contrasts"),
    el("thead", {}, el("tr", {}, head("Claim"), head("Difference, 95 % interval"), head("Seeds"), head("Verdict"), el("th.wide-only", { scope: "col" }, "Source"))),
    el("tbody", {}, rows)));
}

function interval(found) {
  if (!Number.isFinite(found.difference)) return "–";
  const ends = found.interval;
  const around = ends && ends.every(Number.isFinite) ? ` (${signed(ends[0])} to ${signed(ends[1])})` : "";
  return signed(found.difference) + around;
}

/** Mean of one metric for an arm under a condition, over the seeds that ended; with the number of them. */
function mean(arm, condition, metric) {
  const values = results.cells
    .filter((cell) => cell.arm === arm && cell.condition === condition && Number.isFinite(cell.metrics?.[metric]))
    .map((cell) => cell.metrics[metric]);
  return values.length ? [values.reduce((a, b) => a + b) / values.length, values.length] : null;
}

function table() {
  const metric = $("#metric").value, conditions = Object.keys(results.conditions);
  const rows = Object.entries(results.arms).map(([arm, label]) => el("tr", {},
    el("th", { scope: "row" }, el(`span.${CAMPS[arm[0]] ?? "other"}`, {}, arm), el("small", {}, ` ${label}`)),
    conditions.map((condition) => {
      const found = mean(arm, condition, metric);
      return el("td.number", {}, found ? [amount(found[0]), el("small", {}, ` (${found[1]})`)] : "–");
    })));
  $("#table").replaceChildren(el("table", {},
    el("caption", {}, "Means over seeds; how many in brackets. Intervals are in the report."),
    el("thead", {}, el("tr", {}, head("Arm"), conditions.map((condition) => el("th.number", { scope: "col" }, condition)))),
    el("tbody", {}, rows)));
}

function metrics() {
  const named = results.metrics ?? {};
  const every = new Set([...Object.keys(named), ...results.cells.flatMap((cell) => Object.keys(cell.metrics ?? {}))]);
  $("#metric").replaceChildren(...[...every].map((key) => el("option", { value: key }, named[key] ?? key.replaceAll("_", " "))));
}

async function showReport() {
  const address = `/api/report?name=${encodeURIComponent(name)}`;
  const { comparisons } = await ask("/api/runs");
  if (!comparisons.find((found) => found.name === name)?.has_report) return;
  $("#with-report").hidden = false;
  $("#report-link").href = address;
  $("#report").src = address;
}

try {
  results = await ask(`/api/comparison?name=${encodeURIComponent(name)}`);
  $("#question").textContent = results.question;
  document.title = `${results.question} · jepalab`;
  $("#answer").textContent = results.answer;
  $("#trouble").textContent = results.complete === false ? "Unfinished: the same command goes on. What follows is what there is." : "";
  $("#notes").replaceChildren(...(results.notes ?? []).map((note) => el("li", {}, note)));
  metrics();
  contrasts();
  table();
  $("#metric").addEventListener("change", table);
  $("#found").hidden = false;
  await showReport();
} catch (error) {
  $("#trouble").textContent = error.message;
  $("#trouble").classList.add("bad");
}
document.body.dataset.ready = "true";

// The list of runs and comparisons, live, and the curves of the chosen ones.

import { $, amount, ask, duration, el, redraw } from "./dom.js";
import { drawCurves, looks, swatch } from "./curves.js";
import { PRICES, Records } from "./records.js";
import { meterCard } from "./meters.js";

const MOST_CHOSEN = 16;
const records = new Records();
const state = { shelf: { runs: [], comparisons: [] }, chosen: new Set(), touched: false, stream: null, alarm: null };
const address = (page, name) => `/${page}?name=${encodeURIComponent(name)}`;
const badge = (status) => el(`span.badge.${status}`, {}, status);
const campBadge = (camp) => el(`span.camp.${camp}`, {}, camp);

/** Opens the stream for the chosen runs; what they recorded so far comes first. */
function follow() {
  state.stream?.close();
  records.byRun.clear();
  const query = [...state.chosen].map((name) => `run=${encodeURIComponent(name)}`).join("&");
  const stream = (state.stream = new EventSource(`/api/live?${query}`));
  stream.addEventListener("shelf", (event) => {
    state.shelf = JSON.parse(event.data);
    choose();
    list();
    keyAndMeters();
  });
  stream.addEventListener("records", (event) => {
    const { run, records: found } = JSON.parse(event.data);
    records.add(run, found);
    schedule();
  });
  stream.addEventListener("beat", () => { $("#live").textContent = words(); });
  stream.onopen = () => records.byRun.clear();
  stream.onerror = () => { $("#live").textContent = "The lab does not answer; trying again …"; };
}

function words() {
  const { runs } = state.shelf;
  const counts = Object.entries(Object.groupBy(runs, (run) => run.status)).map(([status, found]) => `${found.length} ${status}`);
  return runs.length ? `Live: ${counts.join(", ")}.` : "Live.";
}

/** Until the reader chooses: the running runs, or else the latest of both camps. */
function choose() {
  if (state.touched) return;
  const running = state.shelf.runs.filter((run) => run.status === "running");
  const wanted = (running.length ? running : state.shelf.runs.filter((run) => run.status === "done")).slice(0, 6);
  const names = new Set(wanted.map((run) => run.name));
  if (names.size === state.chosen.size && [...names].every((name) => state.chosen.has(name))) return;
  state.chosen = names;
  follow();
}

/** The reader's choice of one run. */
function pick(name, isChosen) {
  state.touched = true;
  if (isChosen && state.chosen.size >= MOST_CHOSEN) {
    $("#curve-note").textContent = `At most ${MOST_CHOSEN} runs at once; take one out first.`;
    list();
    return;
  }
  $("#curve-note").textContent = "";
  if (isChosen) state.chosen.add(name);
  else state.chosen.delete(name);
  follow();
}

const chosenRuns = () => state.shelf.runs.filter((run) => state.chosen.has(run.name));

let due = 0;
function schedule() {
  if (!due) due = requestAnimationFrame(() => { due = 0; curves(); keyAndMeters(); });
}

/** Keeps a select's options current without losing its choice. */
function fill(select, options) {
  const known = [...select.options].map((option) => option.value).join();
  if (known === Object.keys(options).join()) return;
  const chosen = select.value;
  select.replaceChildren(...Object.entries(options).map(([value, label]) => el("option", { value }, label)));
  if (chosen in options) select.value = chosen;
}

function curves() {
  const runs = chosenRuns();
  fill($("#quantity"), records.quantities(runs.map((run) => run.name)));
  const quantity = $("#quantity").value || "total", price = $("#price").value;
  const lines = runs.map((run) => ({ name: run.name, camp: run.camp, points: records.points(run, quantity, price) }));
  const label = $("#quantity").selectedOptions[0]?.textContent ?? "";
  drawCurves($("#curves"), lines, { x: PRICES[price], y: label, log: $("#log").checked, seconds: price === "seconds" });
  const without = lines.filter((line) => !line.points.length).length;
  $("#curve-words").textContent =
    (quantity === "total" || quantity.startsWith("loss/")
      ? "Losses of different objectives are not comparable in height, only in shape: scores and meters are. "
      : "") + (without ? `${without} of the chosen runs recorded nothing of this.` : "");
}

function keyAndMeters() {
  const runs = chosenRuns(), all = looks(runs);
  $("#key").replaceChildren(
    ...runs.map((run, i) => el("li", {}, swatch(all[i]), el("a", { href: address("run", run.name) }, run.name), " ", campBadge(run.camp))),
  );
  const measured = runs.filter((run) => records.meters(run.name));
  $("#meters").hidden = !measured.length;
  $("#meter-cards").replaceChildren(
    ...measured.map((run) => meterCard(run, records.points(run, "meters/std", "step"), records.meters(run.name), state.alarm)),
  );
}

function list() {
  const wanted = $("#search").value.trim().toLowerCase(), status = $("#status").value;
  const { runs, comparisons } = state.shelf;
  const shown = runs.filter((run) =>
    (!status || run.status === status) &&
    (!wanted || `${run.name} ${run.objective} ${run.recipe} ${run.camp}`.toLowerCase().includes(wanted)));
  $("#nothing").hidden = runs.length + comparisons.length > 0;
  $("#with-runs").hidden = !runs.length;
  $("#with-comparisons").hidden = !comparisons.length;
  $("#comparisons").replaceChildren(...comparisons.map(comparisonCard));
  const focused = document.activeElement?.dataset?.run;
  $("#rows").replaceChildren(...shown.map(row));
  if (focused) $(`#rows input[data-run="${CSS.escape(focused)}"]`)?.focus();
  $("#count").textContent = shown.length === runs.length ? `${runs.length} runs` : `${shown.length} of ${runs.length} runs`;
}

function row(run) {
  const box = el("input", {
    type: "checkbox", checked: state.chosen.has(run.name), "data-run": run.name, "aria-label": `Draw ${run.name}`,
    onchange: (event) => pick(run.name, event.target.checked),
  });
  const far = run.steps
    ? [el("progress", { max: run.steps, value: run.step, "aria-label": `Progress of ${run.name}` }), ` ${amount(run.step)} / ${amount(run.steps)}`]
    : "–";
  const beat = run.status === "running" || run.status === "lost" ? (run.beat === null ? "never" : `${duration(Math.max(0, Date.now() / 1000 - run.beat))} ago`) : "";
  return el("tr", {},
    el("td", {}, box),
    el("td.name", {}, el("a", { href: address("run", run.name) }, run.name), run.error ? el("small.error", {}, run.error) : null),
    el("td", {}, campBadge(run.camp)),
    el("td.wide-only", {}, run.objective || "–"),
    el("td", {}, badge(run.status)),
    el("td.wide-only", {}, far),
    el("td.number.wide-only", {}, beat));
}

function comparisonCard(found) {
  const title = found.question || found.name;
  return el("li.card", {},
    el("h3", {}, el("a", { href: address("comparison", found.name) }, title)),
    el("p.small", {}, badge(found.status), ` ${found.name}, ${found.num_cells} cells`),
    found.answer ? el("p.answer", {}, found.answer) : null,
    found.error ? el("p.state.bad", {}, found.error) : null);
}

for (const id of ["#quantity", "#price", "#log"]) $(id).addEventListener("change", curves);
for (const id of ["#search", "#status"]) $(id).addEventListener("input", list);
$("#none").addEventListener("click", () => { state.touched = true; state.chosen.clear(); follow(); curves(); list(); });
fill($("#price"), PRICES);
state.alarm = await ask("/api/alarm");
follow();
redraw(() => { curves(); keyAndMeters(); });
document.body.dataset.ready = "true";

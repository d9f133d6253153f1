// The list of runs and comparisons, live, and the curves of the chosen ones.

import { $, amount, ask, duration, el, keyed, live, redraw, setText } from "./dom.js";
import { drawCurves, drawSwatch, looks, swatch } from "./curves.js";
import { PRICES, Records } from "./records.js";
import { meterCard } from "./meters.js";

const MOST_CHOSEN = 16, FIRST_CHOSEN = 6, EACH_CAMP = 3;
const records = new Records();
const state = {
  shelf: { runs: [], comparisons: [] }, at: 0, // since when the list is known, by performance.now()
  chosen: new Set(), touched: false, quantity: null, // what the reader wants, whether or not it is there yet
  alarm: null,
};
let stream = null;
const address = (page, name) => `/${page}?name=${encodeURIComponent(name)}`;
const byName = (item) => item.name;

/** Opens the stream for the chosen runs; what they recorded so far comes first. */
function follow() {
  if (stream) return stream.open();
  stream = live(() => records.address([...state.chosen]), { shelf: take, records: grow, beat: ages }, connection);
}

/** The list of runs as it is now. */
function take(shelf) {
  Object.assign(state, { shelf, at: performance.now() });
  setText($("#live"), words());
  choose();
  list();
  schedule();
}

function grow(news) {
  records.add(news);
  schedule();
}

/** Says what is wrong with the connection, and takes back that the page is live. */
function connection(trouble) {
  setText($("#connection"), trouble);
  $("#live").hidden = trouble !== "";
}

function words() {
  const { runs } = state.shelf;
  const groups = Object.entries(Object.groupBy(runs, (run) => run.status));
  return runs.length ? `Live: ${groups.map(([status, found]) => `${found.length} ${status}`).join(", ")}.` : "Live.";
}

/** Until the reader chooses: the running runs, or else the latest of both camps. */
function choose() {
  if (state.touched) return;
  const running = state.shelf.runs.filter((run) => run.status === "running");
  const names = new Set((running.length ? some(running) : latest()).map(byName));
  if (names.size === state.chosen.size && [...names].every((name) => state.chosen.has(name))) return;
  state.chosen = names;
  follow();
}

const ofCamp = (runs, camp) => runs.filter((run) => run.camp === camp).slice(0, EACH_CAMP);
const ofBoth = (runs) => [...ofCamp(runs, "JEPA"), ...ofCamp(runs, "generative")];

/** At most six, of both camps where there are both; by name, so that the choice stays while they beat. */
const some = (runs) => [...new Set([...ofBoth(runs), ...runs])].slice(0, FIRST_CHOSEN);

/** The newest three of each camp that are done. */
function latest() {
  const done = state.shelf.runs.filter((run) => run.status === "done").sort((a, b) => (b.beat ?? 0) - (a.beat ?? 0));
  const both = ofBoth(done);
  return both.length ? both : done.slice(0, EACH_CAMP);
}

/** The reader's choice of one run. */
function pick(name, isChosen) {
  state.touched = true;
  const isTooMany = isChosen && state.chosen.size >= MOST_CHOSEN;
  setText($("#curve-note"), isTooMany ? `At most ${MOST_CHOSEN} runs at once; take one out first.` : "");
  if (isTooMany) return list();
  if (isChosen) state.chosen.add(name);
  else state.chosen.delete(name);
  follow();
  draw();
}

const chosenRuns = () => state.shelf.runs.filter((run) => state.chosen.has(run.name));

function draw() {
  curves();
  keyAndMeters();
}

let due = 0;
function schedule() {
  if (!due) due = requestAnimationFrame(() => { due = 0; draw(); });
}

/** Keeps a select's options current, and chooses what is wanted as soon as it is among them. */
function fill(select, options, wanted) {
  const known = [...select.options].map((option) => option.value).join();
  if (known !== Object.keys(options).join())
    select.replaceChildren(...Object.entries(options).map(([value, label]) => el("option", { value }, label)));
  if (wanted in options && select.value !== wanted) select.value = wanted;
}

function curves() {
  const runs = chosenRuns();
  const options = records.quantities(runs.map(byName));
  fill($("#quantity"), options, state.quantity ?? firstWithPoints(runs, options));
  const quantity = $("#quantity").value || "total", price = $("#price").value;
  const lines = runs.map((run) => ({ name: run.name, camp: run.camp, points: records.points(run, quantity, price) }));
  const label = $("#quantity").selectedOptions[0]?.textContent ?? "";
  drawCurves($("#curves"), lines, { x: PRICES[price], y: label, log: $("#log").checked, seconds: price === "seconds" });
  setText($("#curve-words"), remarks(quantity, lines.filter((line) => !line.points.length).length));
}

/** What is drawn until the reader chooses: the weighted sum, or the first quantity that any of the runs has. */
function firstWithPoints(runs, options) {
  const has = (quantity) => runs.some((run) => records.points(run, quantity, "step").length);
  return Object.keys(options).find(has) ?? "total";
}

/** What to know of these curves. */
function remarks(quantity, without) {
  const isLoss = quantity === "total" || quantity.startsWith("loss/");
  const lacks = quantity === "total" ? "no losses, or not the weights of their terms" : "nothing of this";
  const heights = "Losses of different objectives are not comparable in height, only in shape: scores and meters are. ";
  return (isLoss ? heights : "") + (without ? `${without} of the chosen runs recorded ${lacks}.` : "");
}

function keyAndMeters() {
  const runs = chosenRuns(), all = looks(runs);
  keyed($("#key"), runs.map((run, i) => ({ run, look: all[i] })), ({ run }) => run.name, keyEntry);
  const measured = runs.filter((run) => records.meters(run.name));
  $("#meters").hidden = !measured.length;
  keyed($("#meter-cards"), measured.map(meterItem), ({ run }) => run.name, meterCard);
}

const meterItem = (run) => {
  const spread = records.points(run, "meters/std", "step");
  return { run, spread, meters: records.meters(run.name), alarm: state.alarm };
};

function keyEntry({ run }) {
  const canvas = swatch(), camp = el("span");
  const node = el("li", {}, canvas, el("a", { href: address("run", run.name) }, run.name), " ", camp);
  const update = ({ run: { camp: name }, look }) => {
    drawSwatch(canvas, look);
    mark(camp, `camp ${name}`, name);
  };
  return { node, update };
}

/** A word and the style that goes with it. */
function mark(node, style, word) {
  node.className = style;
  setText(node, word);
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
  keyed($("#comparisons"), comparisons, byName, comparisonCard);
  keyed($("#rows"), shown, byName, row);
  setText($("#count"), shown.length === runs.length ? `${runs.length} runs` : `${shown.length} of ${runs.length} runs`);
}

/** Whether it matters when a run was last heard of. */
const isAwaited = (run) => run.status === "running" || run.status === "lost";

/** When the run was last heard of: its age as the list had it, and the time since then. */
function lastSign(run) {
  if (!isAwaited(run)) return "";
  if (!Number.isFinite(run.age)) return "never";
  return `${duration(run.age + (performance.now() - state.at) / 1000)} ago`;
}

/** Lets the last signs of life grow old. */
function ages() {
  for (const run of state.shelf.runs.filter(isAwaited)) {
    const cell = $(`#rows [data-age="${CSS.escape(run.name)}"]`);
    if (cell) setText(cell, lastSign(run));
  }
}

function row({ name }) {
  const box = el("input", {
    type: "checkbox", "data-run": name, "aria-label": `Draw ${name}`,
    onchange: (event) => pick(name, event.target.checked),
  });
  const error = el("small.error"), camp = el("span"), objective = el("td.wide-only"), status = el("span");
  const bar = el("progress", { "aria-label": `Progress of ${name}` }), far = el("span");
  const age = el("td.number.wide-only", { "data-age": name });
  const node = el("tr", {},
    el("td", {}, box),
    el("td.name", {}, el("a", { href: address("run", name) }, name), error),
    el("td", {}, camp),
    objective,
    el("td", {}, status),
    el("td.wide-only", {}, bar, far),
    age);
  const update = (run) => {
    box.checked = state.chosen.has(name);
    setText(error, run.error);
    error.hidden = !run.error;
    mark(camp, `camp ${run.camp}`, run.camp);
    setText(objective, run.objective || "–");
    mark(status, `badge ${run.status}`, run.status);
    bar.hidden = !run.steps;
    if (run.steps) Object.assign(bar, { max: run.steps, value: run.step });
    setText(far, run.steps ? ` ${amount(run.step)} / ${amount(run.steps)}` : "–");
    setText(age, lastSign(run));
  };
  return { node, update };
}

function comparisonCard({ name }) {
  const link = el("a", { href: address("comparison", name) }), status = el("span"), size = el("span");
  const answer = el("p.answer"), error = el("p.state.bad");
  const node = el("li.card", {}, el("h3", {}, link), el("p.small", {}, status, size), answer, error);
  const update = (found) => {
    setText(link, found.question || name);
    mark(status, `badge ${found.status}`, found.status);
    setText(size, ` ${name}, ${found.num_cells} cells`);
    for (const [part, text] of [[answer, found.answer], [error, found.error]]) {
      setText(part, text);
      part.hidden = !text;
    }
  };
  return { node, update };
}

$("#quantity").addEventListener("change", (event) => { state.quantity = event.target.value; curves(); });
for (const id of ["#price", "#log"]) $(id).addEventListener("change", curves);
for (const id of ["#search", "#status"]) $(id).addEventListener("input", list);
$("#none").addEventListener("click", () => {
  state.touched = true;
  state.chosen.clear();
  setText($("#curve-note"), "");
  follow();
  draw();
  list();
});
fill($("#price"), PRICES, "step");
try {
  state.alarm = await ask("/api/alarm");
} catch (error) {
  connection(error.message);
}
follow();
redraw(draw);
document.body.dataset.ready = "true";

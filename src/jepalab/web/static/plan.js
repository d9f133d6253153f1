// The page /plan: which two runs are opened, out of those the lab shows.

import { $, ask, el, live, work } from "./dom.js";
import { Ground } from "./plan-ground.js";

const WORLDS = [ // recipes of world models
  "vicreg-world", "sigreg-world", "ema-world", "inverse-world", "pixel-world", "pixel-latent-world",
  "frozen-autoencoder-world", "frozen-encoder-world", "frame-world", "diffusion-world", "random-encoder-world",
  "shuffled-world",
];
const CONTROLS = ["random-encoder-world", "shuffled-world"]; // made not to plan well, so nobody's first choice
const TRAIN = { JEPA: "jepalab train vicreg-world --steps 1000", generative: "jepalab train pixel-world --steps 1000" };
const CAMPS = ["JEPA", "generative", "other"];

const ground = new Ground();
let runs = [], seed = 0, opening = null;

/** The runs that may be world models, the newest first. */
function worldsIn(all) {
  const beat = (run) => run.beat ?? 0;
  return all.filter((run) => WORLDS.includes(run.recipe) && run.status !== "broken").sort((a, b) => beat(b) - beat(a));
}

const signature = (these) => JSON.stringify(these.map((run) => [run.name, run.step, run.status]).sort());

/** Takes a list of runs from the server; keeps what was chosen. */
function list(all) {
  const found = worldsIn(all);
  $("#nothing").hidden = found.length > 0;
  $("#with-worlds").hidden = !found.length;
  if (!found.length || signature(found) === signature(runs)) return;
  const isFirst = !runs.length;
  runs = found;
  fillChoices(isFirst ? firstChoice() : { a: $("#run-a").value, b: $("#run-b").value });
  if (isFirst) open();
}

/** What the address names (?run=A&run=B), or else the newest of each camp. */
function firstChoice() {
  const named = new URLSearchParams(location.search).getAll("run");
  const asked = named.filter((name) => runs.some((run) => run.name === name));
  if (asked.length) return { a: asked[0], b: asked[1] ?? "" };
  const best = (camp) => {
    const these = runs.filter((run) => run.camp === camp && !CONTROLS.includes(run.recipe));
    return (these.find((run) => run.status === "done") ?? these[0])?.name;
  };
  const [a, b] = ["JEPA", "generative"].map(best).filter(Boolean);
  return { a: a ?? runs[0].name, b: b ?? "" };
}

function fillChoices({ a, b }) {
  $("#run-a").replaceChildren(...CAMPS.flatMap(options));
  $("#run-b").replaceChildren(el("option", { value: "" }, "none"), ...CAMPS.flatMap(options));
  $("#run-a").value = a;
  $("#run-b").value = b;
  const lacking = ["JEPA", "generative"].filter((camp) => !runs.some((run) => run.camp === camp));
  $("#lacking").hidden = !lacking.length;
  $("#lacking").replaceChildren(...lacking.flatMap((camp) => [
    `There is no ${camp} world model here yet. Train one in about five minutes on two free cores: `,
    el("code", {}, TRAIN[camp]),
  ]));
}

function options(camp) {
  const these = runs.filter((run) => run.camp === camp);
  const unfinished = (run) => (run.status === "done" ? "" : `, ${run.status}`);
  const words = (run) => `${run.name} · ${run.recipe}, ${run.step} steps${unfinished(run)}`;
  const made = these.map((run) => el("option", { value: run.name }, words(run)));
  return made.length ? [el("optgroup", { label: camp }, made)] : [];
}

/** Loads the chosen models and shows their room. */
async function open() {
  ground.stop();
  opening?.abort();
  const mine = (opening = new AbortController()), line = $("#opening");
  const chosen = [...new Set([$("#run-a").value, $("#run-b").value])].filter(Boolean);
  line.classList.remove("bad");
  line.textContent = "Starting …";
  $("#stop-opening").hidden = false;
  const tell = (event, value) => {
    if (mine !== opening) return;
    if (event === "waiting") line.textContent = "Waiting for other work to end …";
    if (event === "began") line.textContent = "Waking the worker; the first time takes some seconds …";
    if (event === "progress") line.textContent = `Opening ${value.loading}, and fitting a probe that reads positions …`;
  };
  try {
    const opened = await work("plan", { what: "open", runs: chosen, seed }, { tell, signal: mine.signal });
    if (mine !== opening) return;
    line.textContent = "";
    $("#ground").hidden = false;
    $("#new-room").hidden = !opened.room.is_drawn;
    ground.enter(opened);
  } catch (error) {
    if (mine !== opening) return;
    line.textContent = error.message;
    line.classList.toggle("bad", error.message !== "Cancelled.");
    $("#ground").hidden = true;
  } finally {
    if (mine === opening) $("#stop-opening").hidden = true;
  }
}

for (const select of ["#run-a", "#run-b"]) $(select).addEventListener("change", open);
$("#stop-opening").addEventListener("click", () => opening?.abort());
$("#new-room").addEventListener("click", () => {
  seed = Math.floor(Math.random() * 2 ** 31);
  open();
});
list((await ask("/api/runs")).runs);
live(() => "/api/live", { shelf: ({ runs: all }) => list(all) });

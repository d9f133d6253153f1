// Bring a step: choose a shipped training step, or paste one where that is allowed, and see its audit.

import { $, el, setText, work, workButton } from "./dom.js";
import { auditView } from "./audit_view.js";

const GROUPS = {
  classic: "Four classics",
  table: "The label table: methods as public code writes them",
  objective: "jepalab's own objectives",
};
let steps = [], chosen = null, stop = null;

function list() {
  const wanted = $("#search").value.trim().toLowerCase();
  const shown = steps.filter((step) => `${step.name} ${step.summary}`.toLowerCase().includes(wanted));
  $("#steps").replaceChildren(
    ...Object.entries(GROUPS).flatMap(([kind, title]) => {
      const found = shown.filter((step) => step.kind === kind);
      return found.length ? [el("h2", {}, title), ...found.map(entry)] : [];
    }),
    ...(shown.length ? [] : [el("p.state", {}, "No step has these words.")]),
  );
}

function entry(step) {
  const facts = { type: "button", "aria-pressed": String(chosen === step.name), "data-step": step.name, onclick: () => examine(step) };
  return el("button", facts, el("span", {}, step.name), el("small", {}, step.summary));
}

/** Audits one step; another choice cancels it. */
async function examine(step) {
  stop?.abort();
  const mine = (stop = new AbortController());
  chosen = step.name;
  for (const button of document.querySelectorAll("#steps button")) button.ariaPressed = String(button.dataset.step === chosen);
  say(`Running ${step.name} under the audit …`);
  $("#answer").replaceChildren();
  const given = { [step.kind === "objective" ? "objective" : "step"]: step.name, confirm: $("#confirm").checked };
  try {
    show(await work("audit", given, { signal: mine.signal }));
    history.replaceState(null, "", `?step=${encodeURIComponent(step.name)}`);
  } catch (error) {
    if (mine === stop) say(error.message, true);
  }
}

/** One line on how the audit goes; it alone is spoken, not the whole audit. */
function say(words, isBad = false) {
  setText($("#said"), words);
  $("#said").classList.toggle("bad", isBad);
}

function show(found) {
  $("#answer").replaceChildren(...auditView(found));
  say(`Audit of ${found.title} is ready.`);
  $("#answer h2").focus({ preventScroll: true });
  const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("#answer").scrollIntoView({ behavior: isCalm ? "auto" : "smooth", block: "start" });
}

function ownStep() {
  if (!$("#code")) return;
  const { button, line } = workButton("Audit this code", async (signal, say) => {
    say("Running it under the audit …");
    show(await work("audit", { code: $("#code").value, function: $("#function").value }, { signal }));
    return "";
  });
  $("#own-row").append(button, line);
}

ownStep();
try {
  ({ steps } = await work("audit", { list: true }));
  list();
  $("#search").addEventListener("input", list);
  const asked = steps.find((step) => step.name === new URLSearchParams(location.search).get("step"));
  if (asked) examine(asked);
} catch (error) {
  $("#reading").textContent = error.message;
}
document.body.dataset.ready = "true";

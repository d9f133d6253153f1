// Exercise 1: what does the loss compare? The right answer is the audit's.
import { $, el, work, workButton } from "./dom.js";
import { choiceGroup } from "./learn_choices.js";
import { checkStep, draw, progress, record } from "./learn_draw.js";

const COLOURS = { "generative": "generative", "JEPA-style": "JEPA" };

/** Sets the exercise up in #steps-here. `random` gives numbers in [0, 1). */
export function setUpSteps(data, memory, random = Math.random) {
  const place = $("#steps-here");
  const isServed = data.served && location.protocol !== "file:";
  const count = () => { $("#steps-done").textContent = progress(data.steps, memory.all("steps")); };
  const next = (last) => {
    const step = draw(data.steps, memory.all("steps"), last, random);
    const shown = showStep(step, data, isServed, {
      answered(right) {
        memory.put("steps", step.id, record(memory.all("steps")[step.id], right));
        count();
      },
      next: () => next(step.id),
    });
    place.replaceChildren(shown);
    if (last) $("h3", shown).focus();
  };
  next();
  count();
}

function showStep(step, data, isServed, { answered, next }) {
  const kinds = choiceGroup("step-label", "What kind of learning is it?", data.labels);
  const spaces = choiceGroup("step-space", "In which space does the loss compare?", data.spaces);
  const state = el("p.state", { role: "status" });
  const result = el("div.result");
  const check = el("button", { type: "button", onclick: () => {
    const [label, space] = [kinds.value(), spaces.value()];
    if (!label || !space) {
      state.textContent = "Choose one of each first.";
      return;
    }
    const right = checkStep(step, label, space);
    kinds.mark((value) => value === step.label);
    spaces.mark((value) => step.spaces.includes(value));
    check.hidden = true;
    state.textContent = stepInWords(right, step, label);
    const onward = el("button", { type: "button", onclick: next }, "Next step");
    result.replaceChildren(...explain(step, isServed), el("p.row", {}, onward));
    answered(right.label && right.space);
  } }, "Check");
  return el("article.card.item", { "data-item": step.id },
    el("h3", { tabindex: "-1" }, step.title),
    el("p.asked", {}, step.describes),
    el("details", {}, el("summary", {}, "Show the code of the step"), el("pre", { tabindex: "0" }, step.source)),
    el("div.grid.wide-choices", {}, kinds.node, spaces.node),
    el("p.row", {}, check), state, result);
}

function stepInWords(right, step, label) {
  const told = step.spaces.join(" and ");
  if (right.label && right.space) return `Right on both: ${step.verdict}, space ${told}.`;
  const part = !right.label && step.label === "mixed" && step.verdict.includes(label) ? " That is a part of it." : "";
  const kind = right.label ? `The kind is right: ${step.label}.` : `The audit says ${step.verdict}.${part}`;
  return `${kind} ${right.space ? `The space is right: ${told}.` : `The space is ${told}.`}`;
}

function explain(step, isServed) {
  const rows = step.terms.map(([label, family, space, share, novelty]) => el("tr", {},
    el("td", {}, label), el(`td.${COLOURS[family] ?? "other"}`, {}, family), el("td", {}, space),
    el("td.number", {}, `${Math.round(100 * share)} %`),
    el("td.number", {}, novelty === null ? "–" : novelty.toFixed(2))));
  const head = ["label", "family", "space"].map((word) => el("th", { scope: "col" }, word));
  const numbers = ["share", "novelty"].map((word) => el("th.number", { scope: "col" }, word));
  const table = el("table", {}, el("caption", {}, "Terms of the loss, as the audit reports them"),
    el("thead", {}, el("tr", {}, head, numbers)), el("tbody", {}, rows));
  return [
    el("p", {}, step.reason),
    el("p.small", {}, `This is ${step.method}.`),
    el("div.scroll", { tabindex: "0", role: "group", "aria-label": "Terms of the loss" }, table),
    step.disputed && el("p.small", {}, `The audit adds: ${step.disputed}.`),
    isServed && auditLive(step.id),
  ].filter(Boolean);
}

/** A button that has the worker audit the step now, and shows what it says. */
function auditLive(id) {
  const answer = el("div.live");
  const { button, line } = workButton("Audit it live", async (signal, say) => {
    say("Running the step under the audit …");
    const found = await work("audit", { step: id }, { signal });
    const lines = (found.terms ?? []).map((term) => el("li", {},
      `${term.label}, space ${term.space}, ${Math.round(100 * term.share)} % of the gradient` +
      (Number.isFinite(term.novelty) ? `, novelty ${term.novelty.toFixed(2)}` : "")));
    const picture = found.svg && el("img", {
      src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(found.svg)}`,
      alt: `The computation of this step, drawn by the audit. Verdict: ${found.verdict}.`,
    });
    const told = el("p", {}, "Just now the audit says: ", el("b", {}, found.verdict), ".");
    answer.replaceChildren(told, el("ul", {}, lines), picture || "");
    return "Done.";
  });
  return el("div", {}, el("p.row", {}, button), line, answer);
}

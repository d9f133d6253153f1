// Exercise 2: which instrument would settle the question, or whose question is it?
import { $, el } from "./dom.js";
import { choiceGroup } from "./learn_choices.js";
import { checkScope, draw, progress, record } from "./learn_draw.js";

/** Sets the exercise up in #scope-here. `random` gives numbers in [0, 1). */
export function setUpScope(data, memory, random = Math.random) {
  const place = $("#scope-here");
  const count = () => { $("#scope-done").textContent = progress(data.scopes, memory.all("scope")); };
  const next = (last) => {
    const item = draw(data.scopes, memory.all("scope"), last, random);
    const shown = showItem(item, data, {
      answered(right) {
        memory.put("scope", item.id, record(memory.all("scope")[item.id], right));
        count();
      },
      next: () => next(item.id),
    });
    place.replaceChildren(shown);
    if (last) $("h3", shown).focus();
  };
  next();
  count();
}

function showItem(item, data, { answered, next }) {
  const inside = choiceGroup("scope-answer", "In scope: measuring a model settles it, by", data.instruments);
  const outside = choiceGroup("scope-answer", "Out of scope: no measurement settles it; it takes", data.categories);
  const state = el("p.state", { role: "status" });
  const result = el("div.result");
  const check = el("button", { type: "button", onclick: () => {
    const answer = inside.value() ?? outside.value();
    if (!answer) {
      state.textContent = "Choose one first.";
      return;
    }
    const right = checkScope(item, answer, data.instruments);
    for (const group of [inside, outside]) group.mark((value) => item.by.includes(value));
    check.hidden = true;
    state.textContent = scopeInWords(right, item);
    result.replaceChildren(el("p", {}, item.reason),
      item.command ? el("p", {}, "This answers it: ", el("code", {}, item.command)) : "",
      el("p.row", {}, el("button", { type: "button", onclick: next }, "Next question")));
    answered(right.scope && right.by);
  } }, "Check");
  return el("article.card.item", { "data-item": item.id },
    el("h3", { tabindex: "-1" }, item.asks),
    el("div.grid.wide-choices", {}, inside.node, outside.node),
    el("p.row", {}, check), state, result);
}

function scopeInWords(right, item) {
  const where = `${item.scope === "in" ? "in scope" : "out of scope"}: ${item.by[0]}`;
  if (right.scope && right.by) return `Right, ${where}.`;
  return right.scope ? `Right scope, but we would say ${item.by[0]}.` : `We say ${where}.`;
}

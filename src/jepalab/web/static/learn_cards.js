// The flashcards: turn, rate, come back when due; print one a page; export for Anki.
import { $, el } from "./dom.js";
import { ankiText } from "./learn_anki.js";
import { GRADES, dayInWords, dayOf, queue, schedule, stage } from "./learn_schedule.js";

const STAGES = ["due", "new", "again today", "not due yet"];

/** Sets the deck up in #cards-here. `now` gives the time. */
export function setUpCards(data, memory, now = () => new Date()) {
  const today = () => dayOf(now());
  let deck = queue(data.cards, memory.all("cards"), today());
  let place = 0;
  let isTurned = false;

  const face = el("button.flashcard", { type: "button", onclick: () => { isTurned = !isTurned; draw(); } });
  const spoken = el("p.unseen", { "aria-live": "polite" });
  const where = el("p.small.where");
  const state = el("p.state", { role: "status" });
  const grades = GRADES.map((grade) => el("button.quiet", {
    type: "button", "data-grade": grade.name, onclick: () => rate(grade),
  }, grade.words, " ", el("kbd", {}, grade.key)));
  const move = (by) => { place = (place + by + deck.length) % deck.length; isTurned = false; draw(); };

  const draw = (says = true) => {
    const card = deck[place];
    const side = isTurned ? "back" : "front";
    face.replaceChildren(
      el("span.side", {}, isTurned ? "Answer" : "Question"), el("span.topic", {}, card.topic),
      isTurned ? el("span.again", {}, card.front) : "", el("span.words", {}, card[side]),
      isTurned ? "" : el("span.hint", {}, "click, Space or Enter turns it"));
    face.classList.toggle("turned", isTurned);
    const kind = STAGES[stage(memory.all("cards")[card.front], today())];
    where.textContent = `Card ${place + 1} of ${deck.length}, ${kind}`;
    grades.forEach((button) => { button.disabled = !isTurned; });
    if (says) spoken.textContent = isTurned ? `Answer: ${card.back}` : `Card ${place + 1}: ${card.front}`;
    count();
  };
  const rate = (grade) => {
    if (!isTurned) return;
    const card = deck[place];
    const after = schedule(memory.all("cards")[card.front], grade.quality, today());
    memory.put("cards", card.front, { ...after, seen: now().getTime() });
    deck = queue(data.cards, memory.all("cards"), today());
    place = 0;
    isTurned = false;
    state.textContent = `${grade.words}: comes back ${after.interval ? `on ${dayInWords(after.due)}` : "today"}.`;
    draw();
    if (!face.contains(document.activeElement)) face.focus();
  };
  const count = () => {
    const stages = data.cards.map((card) => stage(memory.all("cards")[card.front], today()));
    const [due, fresh, again] = [0, 1, 2].map((kind) => stages.filter((each) => each === kind).length);
    const dues = data.cards.map((card) => memory.all("cards")[card.front]?.due).filter(Number.isFinite);
    const left = [due + again && `${due + again} due`, fresh && `${fresh} new`].filter(Boolean).join(", ");
    $("#cards-done").textContent = left || `done for today, the next on ${dayInWords(Math.min(...dues))}`;
  };

  const tool = (id, words, onclick) => el("button.quiet", { type: "button", id, onclick }, words);
  const pad = el("div.pad", { onkeydown: (event) => {
    const grade = GRADES.find(({ key }) => key === event.key);
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "ArrowRight" || event.key === "ArrowDown") move(1);
    else if (event.key === "ArrowLeft" || event.key === "ArrowUp") move(-1);
    else if (grade) rate(grade);
    else return;
    event.preventDefault();
  } },
    where, face, spoken,
    el("div.row.grades", { role: "group", "aria-label": "How well did you know it?" }, grades),
    el("div.row.moves", {}, tool("previous-card", "Previous", () => move(-1)), tool("next-card", "Next", () => move(1)),
      el("span.tools", {}, tool("print-deck", "Print one card a page", () => printDeck(data.cards)),
        tool("export-deck", "Export for Anki", () => save("jepalab-lesson.txt", ankiText(data.cards))))));
  $("#cards-here").replaceChildren(pad, state);
  draw(false);
}

/** One sheet a card, front and back, and nothing else on paper. */
function printDeck(cards) {
  const sheets = cards.map((card, i) => el("section.sheet", {},
    el("p.small", {}, `${card.topic} · card ${i + 1} of ${cards.length}`),
    el("div.half", {}, el("p.words", {}, card.front)), el("div.half.back", {}, el("p", {}, card.back))));
  $("#print-cards").replaceChildren(...sheets);
  document.documentElement.dataset.print = "cards";
  addEventListener("afterprint", () => { delete document.documentElement.dataset.print; }, { once: true });
  print();
}

/** Hands a text to the reader as a file. */
function save(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/plain;charset=utf-8" }));
  el("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

// The seven questions: an answer opens once something was said, and what was said is kept.
import { $ } from "./dom.js";

const LEAST = 15; // characters that count as having tried

/** Sets up every question that stands in the page. */
export function setUpQuestions(memory) {
  const cards = [...document.querySelectorAll("[data-question]")];
  const count = () => {
    const open = cards.filter((card) => memory.all("questions")[card.dataset.question]?.open).length;
    $("#questions-done").textContent = open ? `${open} of ${cards.length} tried` : "";
  };
  cards.forEach((card) => setUp(card, memory, count));
  count();
}

function setUp(card, memory, count) {
  const id = card.dataset.question;
  const [text, answer, state] = [$("textarea", card), $(".answer", card), $(".trying .state", card)];
  const [compare, aloud] = [$(".compare", card), $(".aloud", card)];
  const points = [...card.querySelectorAll(".points input")];
  const keep = (changed) => memory.put("questions", id, { ...memory.all("questions")[id], ...changed });

  compare.setAttribute("aria-controls", answer.id);
  const show = (isOpen) => {
    answer.classList.toggle("open", isOpen);
    compare.textContent = isOpen ? "Close our answer" : "Compare with our answer";
    compare.setAttribute("aria-expanded", String(isOpen));
    aloud.hidden = isOpen;
  };
  const open = () => {
    keep({ text: text.value, open: true });
    show(true);
    state.textContent = "Our answer is below yours.";
    answer.focus();
    count();
  };
  const tally = () => {
    const said = points.filter((point) => point.checked).length;
    $(".points .state", card).textContent = said ? `${said} of ${points.length} said` : "";
  };

  compare.addEventListener("click", () => {
    if (answer.classList.contains("open")) {
      show(false);
      keep({ open: false });
      state.textContent = "";
      count();
    } else if (text.value.trim().length < LEAST) {
      state.textContent = "Try first: a sentence will do, a wrong one too. Or say it aloud.";
      text.focus();
    } else open();
  });
  aloud.addEventListener("click", open);
  text.addEventListener("input", () => keep({ text: text.value }));
  points.forEach((point) => point.addEventListener("change", () => {
    keep({ points: points.filter((each) => each.checked).map((each) => each.value) });
    tally();
  }));

  const kept = memory.all("questions")[id] ?? {};
  text.value = typeof kept.text === "string" ? kept.text : "";
  const said = Array.isArray(kept.points) ? kept.points : [];
  points.forEach((point) => { point.checked = said.includes(point.value); });
  show(Boolean(kept.open));
  tally();
}

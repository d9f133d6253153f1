// The lesson: questions, exercises and cards, on what the page carries with it.
import { $ } from "./dom.js";
import { setUpCards } from "./learn_cards.js";
import { openMemory } from "./learn_memory.js";
import { setUpQuestions } from "./learn_questions.js";
import { setUpScope } from "./learn_scope.js";
import { setUpSteps } from "./learn_steps.js";

const data = JSON.parse($("#lesson").textContent);
const memory = openMemory();

document.documentElement.classList.add("has-script");
setUpQuestions(memory);
setUpSteps(data, memory);
setUpScope(data, memory);
setUpCards(data, memory);
if (!memory.lasts) {
  $("#lesson-kept").textContent = "This browser keeps nothing for this page: what you enter is gone when you close it.";
}

$("#print-lesson").addEventListener("click", () => print());
$("#forget-lesson").addEventListener("click", (event) => {
  const state = $("#lesson-tools .state");
  if (event.target.dataset.sure) {
    memory.forget();
    location.reload();
  } else {
    event.target.dataset.sure = "yes";
    state.textContent = "Press once more to forget your answers, both exercises and the cards' schedule.";
  }
});

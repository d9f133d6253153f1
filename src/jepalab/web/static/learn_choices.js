// A group of choices of which one is taken: radio buttons with a hint each, and marks once they were checked.
import { el } from "./dom.js";

/** `choices` are hints by value. Returns the fieldset, its value, and a function that marks what was right. */
export function choiceGroup(name, legend, choices) {
  const marks = {};
  const options = Object.entries(choices).map(([value, hint]) => {
    marks[value] = el("span.mark-word");
    const words = el("span", {}, el("b", {}, value), marks[value], el("small", {}, hint));
    return el("label.choice", {}, el("input", { type: "radio", name, value }), words);
  });
  const node = el("fieldset.choices", {}, el("legend", {}, legend), el("div.options", {}, options));
  const inputs = [...node.querySelectorAll("input")];
  return {
    node,
    value: () => inputs.find((input) => input.checked)?.value ?? null,
    clear: () => inputs.forEach((input) => { input.checked = false; }),
    /** Says at each choice what it was, and takes no further answers. */
    mark(isRight) {
      for (const input of inputs) {
        input.disabled = true;
        const right = isRight(input.value);
        if (right) marks[input.value].textContent = input.checked ? "right" : "would be right";
        else if (input.checked) marks[input.value].textContent = "not this";
        input.parentElement.classList.toggle("right", right);
        input.parentElement.classList.toggle("wrong", input.checked && !right);
      }
    },
  };
}

/** Text in which `words between backticks` are code, as nodes. */
export function withCode(text) {
  return text.split("`").map((part, i) => (i % 2 ? el("code", {}, part) : part));
}

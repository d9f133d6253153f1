// Look inside: five parts behind tabs; each one's script is fetched when it is first opened.

import { $, el } from "./dom.js";

const PARTS = {
  masks: () => import("./look-masks.js"),
  holds: () => import("./look-holds.js"),
  neighbours: () => import("./look-neighbours.js"),
  dials: () => import("./look-dials.js"),
  surprise: () => import("./look-surprise.js"),
};
const names = Object.keys(PARTS);
const opened = new Map();
const tab = (name) => $(`#tab-${name}`);

/** Shows one part; its script is told when it is shown and when it is left. */
async function show(name) {
  for (const each of names) {
    const isIt = each === name;
    tab(each).setAttribute("aria-selected", String(isIt));
    tab(each).tabIndex = isIt ? 0 : -1;
    $(`#${each}`).hidden = !isIt;
    if (!isIt) opened.get(each)?.hide?.();
  }
  if (opened.has(name)) return opened.get(name)?.show?.();
  opened.set(name, null);
  const body = $(`#${name} .body`);
  try {
    const { open } = await PARTS[name]();
    opened.set(name, (await open(body)) ?? {});
  } catch (error) {
    opened.delete(name);
    body.replaceChildren(el("p.state.bad", { role: "status" }, error.message));
  }
}

const wanted = () => (names.includes(location.hash.slice(1)) ? location.hash.slice(1) : names[0]);

/** Goes to a part by its anchor, so that it can be linked to, and the back button works. */
function go(name) {
  history.pushState(null, "", `#${name}`);
  show(name);
}

for (const name of names) tab(name).addEventListener("click", () => go(name));
$(".tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -names.length, End: names.length }[event.key];
  const at = names.findIndex((name) => tab(name) === document.activeElement);
  if (!step || at < 0) return;
  event.preventDefault();
  const last = names.length - 1;
  const next = Math.abs(step) > 1 ? Math.min(last, Math.max(0, at + step)) : (at + step + names.length) % names.length;
  tab(names[next]).focus();
  go(names[next]);
});
addEventListener("popstate", () => show(wanted()));
addEventListener("hashchange", () => show(wanted()));
show(wanted());

// An audit as the pages show it: the verdict, its picture, its terms, what was found, the code.

import { amount, el } from "./dom.js";

const percent = (share) => (Number.isFinite(share) ? `${Math.round(100 * share)} %` : "–");
const KINDS = { "JEPA-style": "JEPA", generative: "generative" };
const WEIGHTS = { error: "bad", warning: "warm", note: "" };

/** Everything there is to say of one audit. */
export function auditView(found) {
  return [
    el("p.small", {}, found.title),
    el("h2.verdict-line", { tabindex: "-1" }, found.verdict),
    el("p.lead", {}, found.why),
    mixture(found.mixture),
    found.svg ? picture(found) : null,
    found.terms.length ? terms(found.terms) : el("p", {}, "No term was found in this step."),
    list("What else it could be called", found.terms.filter((t) => t.ambiguous).map((t) => [t.name, t.ambiguous])),
    list("What keeps it from the constant solution", found.terms.filter((t) => t.anti_collapse.length).map((t) => [t.name, t.anti_collapse.join(", ")])),
    list("Findings", found.findings.map((f) => [f.kind, f.message, WEIGHTS[f.weight]])),
    list("Black-box tests", found.confirmations.map((c) => [`${c.test}${c.term ? ` of ${c.term}` : ""}: ${agreement(c.agrees)}`, c.message])),
    el("details", {}, el("summary", {}, "The code"), el("pre", { tabindex: "0" }, el("code", {}, found.source))),
    el("p", {}, keep(found)),
    el("p.question", {}, found.question),
  ].filter(Boolean);
}

const agreement = (agrees) => (agrees === null ? "could not tell" : agrees ? "agrees" : "CONTRADICTS");

/** The computation as a picture: an image, so that nothing in it can run or ask for anything. */
export function picture(found) {
  const words = found.terms.map((term) => `${term.name}: ${term.words}`).join("; ");
  const address = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(found.svg)}`;
  return el("div.scroll.audit-picture", { tabindex: "0", role: "region", "aria-label": "Picture of the computation" },
    el("img", { src: address, alt: `How the loss of ${found.title} is computed. ${words}` }));
}

function mixture(shares) {
  const ranked = Object.entries(shares).filter(([, share]) => Number.isFinite(share)).sort(([, a], [, b]) => b - a);
  if (ranked.length < 2) return null;
  const bar = el("div.mixture", { role: "img", "aria-label": ranked.map(([name, share]) => `${name} ${percent(share)}`).join(", ") });
  for (const [name, share] of ranked) {
    const part = el(`span.${KINDS[name] ?? "other"}`, {}, share > 0.12 ? `${name} ${percent(share)}` : "");
    part.style.flexGrow = share;
    bar.append(part);
  }
  return bar;
}

function terms(found) {
  const heads = ["Term", "What it compares", "Space", "Target network", "Share of the encoder's gradient", "Novelty", "Where"];
  return el("div.scroll", { tabindex: "0", role: "region", "aria-label": "Terms of the loss" },
    el("table", {}, el("caption", {}, "What each term compares"),
      el("thead", {}, el("tr", {}, heads.map((head) => el("th", { scope: "col" }, head)))),
      el("tbody", {}, found.map((term) => el("tr", {},
        el("th", { scope: "row" }, term.name),
        el("td", {}, term.words, el("small.label", {}, term.label)),
        el("td", {}, term.space || "–"),
        el("td", {}, term.target),
        el("td.number", {}, percent(term.share)),
        el("td.number", {}, term.novelty === null ? "–" : amount(term.novelty, 2)),
        el("td", {}, el("code", {}, term.place)))))));
}

function list(title, facts) {
  if (!facts.length) return null;
  return el("section", {}, el("h3", {}, title),
    el("ul", {}, facts.map(([name, words, style]) => el("li", {}, el(style ? `strong.${style}` : "strong", {}, name), ` ${words}`))));
}

function keep(found) {
  const link = el("a", { download: `audit of ${found.title}.html`, href: "#" }, "Keep this audit as one page");
  link.addEventListener("click", () => { link.href = URL.createObjectURL(new Blob([found.page], { type: "text/html" })); }, { once: true });
  return link;
}

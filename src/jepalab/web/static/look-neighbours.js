// Nearest training pictures, principal components of patch features as colours, and attention, for two runs.

import { el } from "./dom.js";
import { bytesOf, figure, paintRgb, picture, sheet } from "./look-pixels.js";
import { current } from "./look-picture.js";
import { openSides } from "./look-sides.js";

/** Builds the part; called once. */
export const open = (body) => openSides(body, { task: "neighbours", words: "Look at it", draw });

function draw(answer, run) {
  const { grid, neighbours } = answer;
  const patches = [
    answer.colours && figure(colours(answer), el("b", {}, "patch features"), " by their principal components"),
    answer.attention && figure(attention(answer), el("b", {}, "attention"), " received, bright is more"),
  ].filter(Boolean);
  const near = el(
    "ol.near",
    {},
    ...neighbours.map((each, i) =>
      el(
        "li",
        {},
        picture(
          each.pixels,
          run.side,
          `Neighbour ${i + 1}${each.label ? `, ${each.label}` : ""}, cosine ${each.closeness.toFixed(3)}.`,
        ),
        el("span", {}, each.label || "unlabelled"),
        el("span.small", {}, each.closeness.toFixed(3)),
      ),
    ),
  );
  return [
    patches.length ? el("div.drawings", {}, ...patches) : el("p", {}, "This encoder has no patches to colour."),
    el("h4", {}, "Nearest training pictures"),
    near,
    el(
      "p.small",
      {},
      `Of ${answer.num_known} training pictures, by the cosine of pooled, centred features.` +
        (grid ? ` The encoder has ${grid} × ${grid} patches.` : ""),
    ),
  ];
}

const colours = ({ colours: text, grid }) =>
  paintRgb(
    el("canvas.pixels", { role: "img", "aria-label": `Patch features of ${grid} × ${grid} patches as colours.` }),
    bytesOf(text),
    grid,
  );

/** The picture, bright where patches receive attention. */
function attention({ attention: shares, grid }) {
  const size = 224,
    canvas = sheet(size),
    brush = canvas.getContext("2d"),
    cell = size / grid;
  const [low, high] = [Math.min(...shares), Math.max(...shares)];
  brush.drawImage(current().source, 0, 0, size, size);
  shares.forEach((share, place) => {
    brush.fillStyle = `rgba(0, 0, 0, ${high > low ? 0.85 * (1 - (share - low) / (high - low)) : 0.4})`;
    brush.fillRect((place % grid) * cell, Math.floor(place / grid) * cell, cell + 0.5, cell + 0.5);
  });
  canvas.setAttribute("role", "img");
  canvas.setAttribute(
    "aria-label",
    `Attention received by each patch, ${low.toFixed(2)} to ${high.toFixed(2)} of an equal share.`,
  );
  return canvas;
}

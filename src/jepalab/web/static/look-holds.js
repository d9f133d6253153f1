// What an embedding still holds: decoders trained afterwards beside what the objectives themselves predict.

import { amount, el } from "./dom.js";
import { bytesOf, figure, paintRgb, picture } from "./look-pixels.js";
import { openSides } from "./look-sides.js";

const dB = (value) => (value === null ? "exact" : `${amount(value)} dB`);
let seed = 0,
  sides = null;

/** Builds the part; called once. */
export async function open(body) {
  const other = el(
    "button.quiet",
    {
      type: "button",
      onclick: () => {
        seed += 1;
        sides?.again?.();
      },
    },
    "Other masks",
  );
  sides = await openSides(body, { task: "holds", words: "Look at it", draw, more: () => ({ seed }), extra: [other] });
  return sides;
}

function draw(answer) {
  const { tokens, pooled, own, side } = answer;
  const shown = [
    figure(
      picture(answer.truth, side, "The picture as the encoder gets it."),
      el("b", {}, "the picture"),
      ` ${side} × ${side}`,
    ),
    figure(
      picture(tokens.pixels, side, `Drawn by the decoder from all tokens, ${dB(tokens.psnr)}.`),
      el("b", {}, dB(tokens.psnr)),
      answer.num_tokens > 1 ? ` decoded from all ${answer.num_tokens} tokens` : " decoded from its one token",
    ),
    figure(
      picture(pooled.pixels, pooled.side, `Drawn by the decoder from the mean token, ${dB(pooled.psnr)}.`),
      el("b", {}, dB(pooled.psnr)),
      ` decoded from the mean of them, ${answer.dim} numbers`,
    ),
  ];
  const numbers = (3 * side ** 2) / answer.num_tokens,
    isRoomy = answer.num_tokens > 1 && answer.dim >= numbers;
  const note = el(
    "p.small",
    {},
    `PSNR on this picture; the mean training picture scores ${dB(answer.mean_psnr)}. ` +
      `The decoder learned from ${answer.num_known} training pictures of this run's own data.` +
      (isRoomy
        ? ` A token of ${answer.dim} numbers has room for all ${numbers} of its patch, so that a high PSNR from all ` +
          "tokens says little; their mean has to choose."
        : ""),
  );
  return [el("div.drawings", {}, ...shown), ...(own ? ownPrediction(answer, own) : [noPrediction()]), note];
}

const noPrediction = () => el("p", {}, "This objective hides nothing, so there is no prediction of its own to draw.");

/** What the objective predicts at its own mask: what it saw, and its prediction in place. */
function ownPrediction({ truth, side }, own) {
  const words =
    own.by === "pixels"
      ? "its own prediction of the hidden pixels" +
        (own.is_told ? "; the true mean and contrast of each patch were put back, since it never says them" : "")
      : "its predicted embeddings of the target blocks, drawn by a decoder that learned from their targets";
  return [
    el("h4", {}, "Under its own mask"),
    el(
      "div.drawings",
      {},
      figure(
        masked(truth, side, own),
        el("b", {}, "what it saw"),
        ` ${own.seen.length} of ${own.grid[0] * own.grid[1]} patches`,
      ),
      figure(
        picture(own.pixels, side, `The picture with the prediction in it, ${dB(own.psnr)} where it was asked.`),
        el("b", {}, dB(own.psnr)),
        ` ${words}`,
      ),
    ),
  ];
}

/** The picture with all that was not seen in grey. */
function masked(truth, side, own) {
  const bytes = bytesOf(truth),
    seen = new Set(own.seen),
    [rows, columns] = own.grid;
  for (let y = 0; y < side; y++)
    for (let x = 0; x < side; x++)
      if (!seen.has(Math.floor((y * rows) / side) * columns + Math.floor((x * columns) / side)))
        bytes.fill(128, 3 * (y * side + x), 3 * (y * side + x) + 3);
  return paintRgb(
    el("canvas.pixels", {
      role: "img",
      "aria-label": `The patches that were seen, ${own.seen.length}; the rest is grey.`,
    }),
    bytes,
    side,
  );
}

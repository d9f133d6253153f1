// Pictures for the canvases: cost maps in steps of one colour, and frames as a model sees them.

import { colour } from "./dom.js";

const BANDS = 12;
const FINE = 6; // dots of the map for each place of its grid
const TONES = { JEPA: "blue", generative: "vermillion", other: "grey", way: "grey" };
const STRONGEST = { way: 0.5 }; // share of the tone in what is nearest; walls are grey too
const DOT = [255, 255, 255], WALL = [110, 110, 120];

/** A colour of the style sheet by a camp's name. */
export const toneOf = (camp) => colour(TONES[camp] ?? "grey");

/** Red, green and blue of "#rrggbb". */
function channels(hex) {
  const value = parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
}

/** The map as a canvas: near is the camp's colour, far the ground's. Rows hold shares of the largest distance, null in
 *  walls; bands make lines of equal distance visible. */
export function mapPicture(rows, camp) {
  const num = rows.length, side = num * FINE;
  const made = new OffscreenCanvas(side, side);
  const context = made.getContext("2d"), image = context.createImageData(side, side);
  const near = channels(toneOf(camp)), far = channels(colour("sunken"));
  for (let y = 0; y < side; y++) for (let x = 0; x < side; x++) {
    const share = between(rows, (x + 0.5) / FINE - 0.5, (y + 0.5) / FINE - 0.5);
    if (share === null) continue;
    const strength = (STRONGEST[camp] ?? 0.8) * (1 - Math.min(1, (Math.floor(share * BANDS) + 0.5) / BANDS));
    const at = 4 * (y * side + x);
    for (let c = 0; c < 3; c++) image.data[at + c] = far[c] + strength * (near[c] - far[c]);
    image.data[at + 3] = 255;
  }
  context.putImageData(image, 0, 0);
  return made;
}

/** The value between four places, of those that have one. */
function between(rows, x, y) {
  const last = rows.length - 1;
  const left = Math.max(0, Math.min(last, Math.floor(x))), top = Math.max(0, Math.min(last, Math.floor(y)));
  let sum = 0, weight = 0;
  for (const [row, column] of [[top, left], [top, left + 1], [top + 1, left], [top + 1, left + 1]]) {
    const value = rows[row]?.[column] ?? null;
    const share = Math.max(0, 1 - Math.abs(x - column)) * Math.max(0, 1 - Math.abs(y - row)) + 1e-6;
    if (value !== null) { sum += share * value; weight += share; }
  }
  return weight > 1e-9 ? sum / weight : null;
}

/** Paints a frame that came as base64, channel by channel: the dot (and what else shines) in white, walls in grey. */
export function paintFrame(canvas, packed, size) {
  const bytes = Uint8Array.from(atob(packed), (letter) => letter.charCodeAt(0));
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d"), image = context.createImageData(size, size), plane = size * size;
  for (let i = 0; i < plane; i++) {
    const dot = bytes[i] / 255, wall = bytes[plane + i] / 255;
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = wall * WALL[c] + dot * (DOT[c] - wall * WALL[c]);
    image.data[4 * i + 3] = 255;
  }
  context.putImageData(image, 0, 0);
}

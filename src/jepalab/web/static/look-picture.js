// The picture that the parts of this page look at: built in, out of a run's own data, or the reader's own.

import { el, work } from "./dom.js";
import { bytesOf, paintRgb, rgbAt, sheet } from "./look-pixels.js";

const LARGEST = 512;
const shared = { source: null, name: "", raw: null, serial: 0 };
const listeners = new Set();
let digits = null;

/** What is looked at: a square canvas, and its name in words. */
export const current = () => shared;

/** Calls `heard` at each new picture. */
export const onPicture = (heard) => listeners.add(heard);

/** The picture as base64 of red, green and blue, at an encoder's size; untouched where it has that size already. */
export const pixelsAt = (side) =>
  shared.raw && shared.source.width === side ? shared.raw : rgbAt(shared.source, side);

function take(source, name, raw = null) {
  Object.assign(shared, { source, name, raw, serial: shared.serial + 1 });
  for (const heard of listeners) heard();
}

/** A landscape out of plain shapes: something with parts, and the same in every browser. */
function landscape() {
  const canvas = sheet(448),
    brush = canvas.getContext("2d");
  const fill = (style, draw) => {
    brush.fillStyle = style;
    brush.beginPath();
    draw();
    brush.fill();
  };
  const sky = brush.createLinearGradient(0, 0, 0, 300);
  sky.addColorStop(0, "#3f7fc4");
  sky.addColorStop(1, "#f3d9b1");
  fill(sky, () => brush.rect(0, 0, 448, 448));
  fill("#fff1b8", () => brush.arc(336, 96, 40, 0, 2 * Math.PI));
  fill("#6d7fa3", () => {
    brush.moveTo(0, 270);
    brush.lineTo(96, 120);
    brush.lineTo(190, 252);
    brush.lineTo(270, 160);
    brush.lineTo(448, 300);
    brush.lineTo(0, 300);
  });
  fill("#eef3f8", () => {
    brush.moveTo(96, 120);
    brush.lineTo(126, 162);
    brush.lineTo(98, 152);
    brush.lineTo(70, 162);
  });
  fill("#4f8a4c", () => {
    brush.moveTo(0, 300);
    brush.quadraticCurveTo(150, 250, 448, 310);
    brush.lineTo(448, 448);
    brush.lineTo(0, 448);
  });
  fill("#2f6fa0", () => {
    brush.moveTo(190, 448);
    brush.quadraticCurveTo(250, 350, 448, 346);
    brush.lineTo(448, 448);
  });
  fill("#b5533c", () => brush.rect(60, 300, 92, 66));
  fill("#6b2f26", () => {
    brush.moveTo(48, 302);
    brush.lineTo(106, 252);
    brush.lineTo(164, 302);
  });
  fill("#f6e7c8", () => brush.rect(78, 318, 22, 22));
  fill("#3a2620", () => brush.rect(116, 322, 20, 44));
  for (const [x, y, r] of [
    [208, 292, 26],
    [196, 316, 22],
    [222, 316, 22],
  ])
    fill("#2d6037", () => brush.arc(x, y, r, 0, 2 * Math.PI));
  fill("#5b3c28", () => brush.rect(203, 330, 10, 34));
  return canvas;
}

/** The reader's file, cut square around its middle. It is decoded by this browser and sent nowhere. */
async function ownPicture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`This browser cannot read ${file.name} as a picture; try a PNG or a JPEG.`);
  }
  const side = Math.min(bitmap.width, bitmap.height),
    size = Math.min(side, LARGEST),
    canvas = sheet(size);
  const brush = canvas.getContext("2d");
  brush.fillStyle = "#ffffff";
  brush.fillRect(0, 0, size, size);
  brush.imageSmoothingQuality = "high";
  brush.drawImage(bitmap, (bitmap.width - side) / 2, (bitmap.height - side) / 2, side, side, 0, 0, size, size);
  return canvas;
}

const fromRaw = (each, side) => paintRgb(sheet(side), bytesOf(each.pixels), side);

/** A row of pictures to choose from, with the reader's own. Returns { node, offer }: `offer(run)` adds pictures of a
 *  run's own data. */
export function chooser(labelled = "Picture") {
  const choices = el("div.choices"),
    others = el("div.choices"),
    line = el("p.state", { role: "status" });
  const button = (source, name, raw) => {
    const small = sheet(48),
      brush = small.getContext("2d");
    brush.imageSmoothingEnabled = source.width > 48;
    brush.drawImage(source, 0, 0, 48, 48);
    small.setAttribute("aria-hidden", "true");
    const made = el("button.choice", { type: "button", "aria-label": name, title: name }, small);
    made.addEventListener("click", () => {
      line.textContent = "";
      take(source, name, raw);
    });
    made.dataset.name = name;
    return made;
  };
  const mark = () => {
    for (const each of [...choices.children, ...others.children])
      if (each.dataset.name) each.setAttribute("aria-pressed", String(each.dataset.name === shared.name));
  };
  const file = el("input", { type: "file", accept: "image/*" });
  file.addEventListener("change", async () => {
    if (!file.files.length) return;
    try {
      take(await ownPicture(file.files[0]), "your picture");
      line.classList.remove("bad");
      line.textContent = "Read in this browser, and cut square around its middle.";
    } catch (error) {
      line.classList.add("bad");
      line.textContent = error.message;
    }
  });
  if (!shared.source) Object.assign(shared, { source: landscape(), name: "landscape" });
  choices.append(button(landscape(), "landscape", null));
  digits ??= work("specimens", { run: "" });
  digits.then(
    ({ pictures, side }) => {
      choices.append(...pictures.map((each) => button(fromRaw(each, side), `handwritten ${each.label}`, each.pixels)));
      mark();
    },
    (error) => {
      digits = null;
      line.textContent = error.message;
    },
  );
  onPicture(mark);
  mark();
  const offer = ({ pictures, side }, of) => {
    others.replaceChildren(
      el("span.small", {}, `From the data of ${of}:`),
      ...pictures.map((each, i) =>
        button(fromRaw(each, side), `${each.label || "picture"}, ${i + 1} of ${of}`, each.pixels),
      ),
    );
    mark();
  };
  const own = el("label.own", {}, "Your own picture ", file);
  return { node: el("fieldset.picture", {}, el("legend", {}, labelled), choices, others, own, line), offer };
}

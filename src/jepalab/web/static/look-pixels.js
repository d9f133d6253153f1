// Raw pixels between base64, canvases and the eye. No picture is ever encoded or decoded by the lab itself.

import { el } from "./dom.js";

/** Bytes out of base64. */
export const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** Base64 of bytes. */
export function textOf(bytes) {
  let letters = "";
  for (let at = 0; at < bytes.length; at += 0x8000) letters += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return btoa(letters);
}

/** A canvas of this many pixels. */
export function sheet(width, height = width) {
  const made = document.createElement("canvas");
  made.width = width;
  made.height = height;
  return made;
}

/** Paints red, green and blue bytes, row by row, into a canvas, which takes their size. */
export function paintRgb(canvas, bytes, width, height = width) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) {
    for (let k = 0; k < 3; k++) image.data[4 * i + k] = bytes[3 * i + k];
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Paints grey bytes of one frame, out of a clip of many. */
export function paintGrey(canvas, bytes, side, frame = 0) {
  if (canvas.width !== side || canvas.height !== side) [canvas.width, canvas.height] = [side, side];
  const image = new ImageData(side, side),
    start = frame * side * side;
  for (let i = 0; i < side * side; i++) {
    image.data.fill(bytes[start + i], 4 * i, 4 * i + 3);
    image.data[4 * i + 3] = 255;
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A canvas with a text alternative, from base64 of red, green and blue. */
export function picture(text, side, label) {
  return paintRgb(el("canvas.pixels", { role: "img", "aria-label": label }), bytesOf(text), side);
}

/** A figure with a caption below a canvas. */
export const figure = (canvas, ...caption) => el("figure.drawn", {}, canvas, el("figcaption", {}, ...caption));

/** Red, green and blue bytes of a canvas at another size, as base64. */
export function rgbAt(source, side) {
  const small = sheet(side),
    brush = small.getContext("2d", { willReadFrequently: true });
  brush.imageSmoothingQuality = "high";
  brush.imageSmoothingEnabled = source.width >= side;
  brush.drawImage(source, 0, 0, side, side);
  const { data } = brush.getImageData(0, 0, side, side),
    bytes = new Uint8Array(3 * side * side);
  for (let i = 0; i < side * side; i++) for (let k = 0; k < 3; k++) bytes[3 * i + k] = data[4 * i + k];
  return textOf(bytes);
}

// Clips of grey frames: played, paused, or as a still strip where motion is unwelcome.

import { el } from "./dom.js";
import { bytesOf, paintGrey, sheet } from "./look-pixels.js";

const still = matchMedia("(prefers-reduced-motion: reduce)");

/** Whether the reader asked for no motion. */
export const isStill = () => still.matches;

/** A clip out of base64: {bytes, side, count}. */
export const clipOf = (text, side, count) => ({ bytes: bytesOf(text), side, count });

/** The first frames side by side in one canvas. */
export function strip(clip, frames) {
  const canvas = sheet(clip.side * frames.length, clip.side),
    brush = canvas.getContext("2d");
  frames.forEach((frame, i) =>
    brush.drawImage(paintGrey(sheet(clip.side), clip.bytes, clip.side, frame), i * clip.side, 0),
  );
  return canvas;
}

/** Steps through frames: {play, pause, go, node, frame}. `show(frame)` draws; the button and the slider are the
 *  reader's. Playing begins by itself unless motion is unwelcome. */
export function player({ count, show, perSecond = 6, label = "Frame" }) {
  const state = { frame: 0, count, timer: 0 };
  const button = el("button.quiet", { type: "button" }, "Play");
  const slider = el("input", { type: "range", min: 0, max: count - 1, step: 1, value: 0, "aria-label": label });
  const out = el("output.small");
  const go = (frame) => {
    state.frame = frame;
    slider.value = frame;
    out.textContent = `${frame + 1} of ${state.count}`;
    show(frame);
  };
  const pause = () => {
    clearInterval(state.timer);
    state.timer = 0;
    button.textContent = "Play";
  };
  const play = () => {
    clearInterval(state.timer);
    state.timer = setInterval(() => go((state.frame + 1) % state.count), 1000 / perSecond);
    button.textContent = "Pause";
  };
  button.addEventListener("click", () => (state.timer ? pause() : play()));
  slider.addEventListener("input", () => {
    pause();
    go(Number(slider.value));
  });
  const resize = (next) => {
    state.count = next;
    slider.max = next - 1;
    go(Math.min(state.frame, next - 1));
  };
  const isPlaying = () => state.timer !== 0;
  return {
    node: el("div.player", {}, button, slider, out),
    go,
    play,
    pause,
    resize,
    isPlaying,
    get frame() {
      return state.frame;
    },
  };
}

// A strip of a clip's frames to choose one from: a range input over a row of small pictures, with marks.

import { h, sheet } from "./elements.js";

const HEIGHT = 48; // CSS pixels
const BELOW = 10; // for the marks
const THUMB = 14; // width of the range's thumb: its middle goes from half of it to half of it before the end

export const stripStyle = sheet(`
  .strip { position: relative; height: ${HEIGHT + BELOW}px; }
  .strip canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
  .strip input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; appearance: none; background: none; touch-action: pan-y; }
  .strip input::-webkit-slider-thumb { appearance: none; width: ${THUMB}px; height: ${HEIGHT}px; margin-bottom: ${BELOW}px; border: 3px solid var(--_accent); border-radius: 5px; background: transparent; box-shadow: 0 0 0 1px var(--_card), inset 0 0 0 1px var(--_card); }
  .strip input::-moz-range-thumb { width: ${THUMB - 6}px; height: ${HEIGHT}px; border: 3px solid var(--_accent); border-radius: 5px; background: transparent; }
  .strip input::-webkit-slider-runnable-track { height: 100%; }
`);

export class FrameStrip {
  #frames = null;
  #marks = [];
  #drawing = 0;

  constructor(choose) {
    this.canvas = h("canvas", { "aria-hidden": "true" });
    this.input = h("input", { type: "range", min: 1, value: 1, "aria-label": "Frame", input: () => choose(this.value) });
    this.element = h("div", { class: "strip" }, this.canvas, this.input);
    this.observer = new ResizeObserver(() => this.#draw());
    this.observer.observe(this.element);
  }

  get value() {
    return Number(this.input.value) - 1;
  }

  set value(index) {
    this.input.value = index + 1;
    this.input.setAttribute("aria-valuetext", `frame ${index + 1} of ${this.input.max}`);
  }

  /** @param marks the frames that get a dot. */
  set marks(marks) {
    if (String(marks) === String(this.#marks)) return;
    this.#marks = marks;
    this.#draw();
  }

  set frames(frames) {
    this.#frames = frames;
    if (frames) this.input.max = frames.count;
    this.#draw();
  }

  async #draw() {
    const turn = ++this.#drawing;
    const [frames, width] = [this.#frames, this.element.clientWidth - THUMB];
    if (!frames || width <= 0) return;
    const density = window.devicePixelRatio || 1;
    const scratch = new OffscreenCanvas(Math.round((width + THUMB) * density), Math.round((HEIGHT + BELOW) * density));
    const context = scratch.getContext("2d");
    context.scale(density, density);
    context.translate(THUMB / 2, 0);
    const cells = Math.max(Math.min(Math.round(width / ((HEIGHT * frames.width) / frames.height)), frames.count), 1);
    const cell = width / cells;
    for (let i = 0; i < cells; i++) {
      const picture = await frames.at(Math.floor(((i + 0.5) / cells) * frames.count)).catch(() => null);
      if (turn !== this.#drawing || !picture) return;
      const scale = Math.max(cell / frames.width, HEIGHT / frames.height);
      const [w, h] = [cell / scale, HEIGHT / scale]; // the part of the frame that fills its cell
      context.drawImage(picture, (frames.width - w) / 2, (frames.height - h) / 2, w, h, i * cell, 0, cell - 1, HEIGHT);
    }
    context.fillStyle = getComputedStyle(this.element).getPropertyValue("color");
    for (const mark of this.#marks) {
      context.beginPath();
      context.arc((width * mark) / Math.max(frames.count - 1, 1), HEIGHT + BELOW / 2, 3, 0, 2 * Math.PI);
      context.fill();
    }
    this.canvas.width = scratch.width; // also clears it: all at once, so that it does not flicker
    this.canvas.height = scratch.height;
    this.canvas.getContext("2d").drawImage(scratch, 0, 0);
  }
}

// A mask under the brush: layers of alpha, one for each frame that was drawn on, and their history. A layer is never
// changed once it is in the history, so undo is a step to another set of layers, and equal ones share their memory.

import { animatedPng } from "./apng.js";

const LONGEST = 2048; // pixels of a layer's longer side; larger pictures get their mask enlarged
const LONGEST_OF_CLIP = 1024; // and smaller ones a finer layer, so that strokes are smooth
const HISTORY = 96 << 20; // bytes
const FEWEST_STEPS = 6;

export class Mask {
  #states;
  #now = 0;
  #shares = new WeakMap(); // layer: the part of it that is masked

  /** @param width, height of the source, pixels; @param count its frames. */
  constructor(width, height, count = 1) {
    const fits = (count > 1 ? LONGEST_OF_CLIP : LONGEST) / Math.max(width, height);
    const fine = Math.floor(LONGEST_OF_CLIP / Math.max(width, height)); // whole, so that boxes keep their edges
    const scale = Math.max(Math.min(fits, 1), fine);
    Object.assign(this, { width, height, count, frame: 0 });
    this.canvas = new OffscreenCanvas(Math.max(Math.round(width * scale), 1), Math.max(Math.round(height * scale), 1));
    this.pen = this.canvas.getContext("2d", { willReadFrequently: true });
    this.#states = [{ apart: false, frame: 0, layers: new Map() }];
    this.#load();
  }

  get #state() {
    return this.#states[this.#now];
  }

  get canUndo() {
    return this.#now > 0;
  }

  get canRedo() {
    return this.#now < this.#states.length - 1;
  }

  /** Whether frames have masks of their own; else one holds for all. */
  get apart() {
    return this.#state.apart;
  }

  /** The frames that were drawn on. */
  get drawn() {
    return [...this.#state.layers.keys()].sort((a, b) => a - b);
  }

  get empty() {
    return [...this.#state.layers.values()].every((layer) => this.#shares.get(layer) === 0);
  }

  /** The part of the shown frame that is masked, 0 to 1. */
  get coverage() {
    return this.#shares.get(this.#layer(this.frame)) ?? 0;
  }

  /** A layer of pixels: masked where `value`, of the place of a pixel's first byte, is half or more. */
  #made(value) {
    const layer = new Uint8Array(this.canvas.width * this.canvas.height);
    let count = 0;
    for (let i = 0; i < layer.length; i++) {
      if (value(4 * i) < 127.5) continue;
      layer[i] = 255; // or nothing: what is shown is what counts, and erasing leaves no ghosts
      count++;
    }
    this.#shares.set(layer, count / layer.length);
    return layer;
  }

  /** A frame's layer: its own, or the nearest earlier one, or, before the first one, that. */
  #layer(frame) {
    const { layers } = this.#state;
    const drawn = this.drawn;
    return layers.get(drawn.filter((key) => key <= frame).pop() ?? drawn[0]);
  }

  #load() {
    this.#put(this.pen, this.#layer(this.frame));
  }

  #put(context, layer) {
    const { width, height } = this.canvas;
    context.resetTransform();
    context.clearRect(0, 0, width, height);
    if (layer) {
      const image = new ImageData(width, height);
      const pixels = new Uint32Array(image.data.buffer).fill(0x00ffffff); // little-endian, as all browsers' machines
      for (let i = 0; i < layer.length; i++) pixels[i] |= layer[i] << 24;
      context.putImageData(image, 0, 0);
    }
    context.setTransform(width / this.width, 0, 0, height / this.height, 0, 0);
    Object.assign(context, { fillStyle: "#fff", strokeStyle: "#fff", lineCap: "round", lineJoin: "round" });
  }

  /** Show another frame; what was drawn and not committed is lost. */
  select(frame) {
    this.frame = frame;
    this.#load();
  }

  /* Drawing, in pixels of the source. It counts from commit() on. */

  dot(x, y, diameter, { erase = false } = {}) {
    this.#how(erase);
    this.pen.beginPath();
    this.pen.arc(x, y, diameter / 2, 0, 2 * Math.PI);
    this.pen.fill();
  }

  /** A part of a stroke: from one point to another, bent towards a third. */
  curve(from, towards, to, diameter, { erase = false } = {}) {
    this.#how(erase);
    this.pen.lineWidth = diameter;
    this.pen.beginPath();
    this.pen.moveTo(...from);
    this.pen.quadraticCurveTo(...towards, ...to);
    this.pen.stroke();
  }

  rectangle({ x, y, w, h }, { erase = false } = {}) {
    this.#how(erase);
    this.pen.fillRect(x, y, w, h);
  }

  #how(erase) {
    this.pen.globalCompositeOperation = erase ? "destination-out" : "source-over";
  }

  revert() {
    this.#load();
  }

  /** Make what was drawn a step of the history; `instead` of the latest one, when it goes on with that. */
  commit({ instead = false } = {}) {
    if (instead && this.canUndo) this.#now--;
    const { apart, layers } = this.#state;
    this.#push({ apart, layers: new Map(layers).set(apart ? this.frame : 0, this.#read(this.pen)) });
  }

  #read(context) {
    const { data } = context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    return this.#made((at) => data[at + 3]);
  }

  #push(state) {
    this.#states.length = this.#now + 1;
    this.#states.push({ frame: this.frame, ...state });
    while (this.#states.length > FEWEST_STEPS && this.#bytes() > HISTORY) this.#states.shift();
    this.#now = this.#states.length - 1;
    this.#load();
  }

  #bytes() {
    return new Set(this.#states.flatMap(({ layers }) => [...layers.values()])).size * this.canvas.width * this.canvas.height;
  }

  /** Go back a step; the frame that it was drawn on is shown. */
  undo() {
    if (!this.canUndo) return;
    this.frame = this.#state.frame;
    this.#now--;
    this.#load();
  }

  redo() {
    if (!this.canRedo) return;
    this.#now++;
    this.frame = this.#state.frame;
    this.#load();
  }

  /** Draw the mask without the latest step, so that this can be done otherwise. */
  peel() {
    if (!this.canUndo) return;
    this.#now--;
    this.#load();
    this.#now++;
  }

  clear() {
    this.rectangle({ x: 0, y: 0, w: this.width, h: this.height }, { erase: true });
    this.commit();
  }

  invert() {
    this.pen.globalCompositeOperation = "source-out";
    this.pen.fillRect(0, 0, this.width, this.height);
    this.commit();
  }

  /** Choose whether frames have masks of their own. Without, the shown frame's mask is the one that stays. */
  keepApart(apart) {
    if (apart === this.apart) return;
    const layer = this.#layer(this.frame);
    this.#push({ apart, layers: layer ? new Map([[0, layer]]) : new Map() });
  }

  /** Take masks made elsewhere: luminance, what is transparent is black; centred and cut where proportions differ. */
  async take(frames) {
    const { width, height } = this.canvas;
    const board = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
    const layers = new Map();
    const many = frames.count > 1 && this.count > 1;
    for (let frame = 0; frame < (many ? this.count : 1); frame++) {
      const from = frames.count === this.count ? frame : Math.floor((frame * frames.count) / this.count);
      const scale = Math.max(width / frames.width, height / frames.height);
      const [w, h] = [frames.width * scale, frames.height * scale];
      const picture = await frames.at(many ? from : 0);
      board.fillStyle = "#000";
      board.fillRect(0, 0, width, height);
      board.drawImage(picture, (width - w) / 2, (height - h) / 2, w, h);
      const { data } = board.getImageData(0, 0, width, height);
      // Rec. 601, as Pillow's "L", by which masks are read.
      layers.set(frame, this.#made((at) => 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2]));
    }
    if (many) this.#push({ apart: true, layers });
    else this.#push({ apart: this.apart, layers: new Map(this.#state.layers).set(this.apart ? this.frame : 0, layers.get(0)) });
  }

  /* The mask as files: white = change, black = keep, at the source's size. */

  async #png(layer) {
    const own = new OffscreenCanvas(this.canvas.width, this.canvas.height);
    this.#put(own.getContext("2d"), layer);
    const whole = new OffscreenCanvas(this.width, this.height);
    const context = whole.getContext("2d");
    context.fillRect(0, 0, this.width, this.height);
    context.imageSmoothingQuality = "high";
    context.drawImage(own, 0, 0, this.width, this.height);
    return whole.convertToBlob({ type: "image/png" });
  }

  /** A PNG for each frame, or null where nothing is masked; frames with the same mask share one. */
  async toBlobs() {
    if (this.empty) return null;
    const made = new Map();
    const blobs = [];
    for (let frame = 0; frame < this.count; frame++) {
      const layer = this.#layer(frame);
      if (!made.has(layer)) made.set(layer, await this.#png(layer));
      blobs.push(made.get(layer));
    }
    return blobs;
  }

  /** One PNG, animated where frames have masks of their own, shown for `seconds` each; null where nothing is masked. */
  async toBlob(seconds) {
    if (this.empty) return null;
    if (this.#state.layers.size === 1) return this.#png(this.#layer(0));
    return animatedPng(await this.toBlobs(), seconds);
  }
}

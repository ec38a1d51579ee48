// <mask-editor>: paint what should change on a picture, or on frames of a clip, by mouse, pen, finger or keyboard.
//
//   await editor.setSource(blobOrAddress, { fps, frames })   or   await editor.setFrames([blob, …], { fps })
//   await editor.toBlob()    PNG at the source's size, white = change; animated if frames have masks of their own; or null
//   await editor.toBlobs()   a PNG for each frame, or null
//   editor.empty, .coverage, .tool ("brush", "eraser", "box"), .size (pixels of the source), .box, .frame
//   editor.undo(), .redo(), .clear(), .invert(), .loadMask(blob)
//   event "change"; attributes src, hint (what an empty mask says), still (only a clip's first frame is painted on);
//   custom property --stage-height

import { clamp } from "./elements.js";
import { framesOf, openFrames } from "./frames.js";
import { Mask } from "./mask.js";
import { MaskHands } from "./mask-hands.js";
import { buildParts } from "./mask-parts.js";
import { MaskView, unlike } from "./mask-view.js";
import { inside } from "./strokes.js";

const SMALLEST = 0.004; // a brush's diameter, as parts of the longer side
const LARGEST = 0.5;

class MaskEditor extends HTMLElement {
  static observedAttributes = ["src", "hint"];

  mask = null; // for its hands, as what follows; the page asks by the properties and methods below
  #frames = null;
  #open = null; // opens the source's frames, again after the element was away
  #seconds = []; // how long each frame is shown
  #loads = 0;
  #tool = "brush";
  #size = 0.07; // of the longer side
  live = null; // the box that was drawn last, as long as it can be moved
  #asked = 0; // for the next drawing

  constructor() {
    super();
    Object.assign(this, buildParts(this, (frame) => this.#select(frame)));
    this.view = new MaskView(this.board);
    this.hands = new MaskHands(this);
    this.#showSize();
    this.tell();
    this.#listen();
  }

  #listen() {
    this.slider.addEventListener("input", () => this.#setSize(SMALLEST * (LARGEST / SMALLEST) ** (this.slider.value / 100)));
    this.file.addEventListener("change", () => this.file.files[0] && this.loadMask(this.file.files[0]));
    this.all.addEventListener("change", () => {
      this.live = null;
      this.mask.keepApart(!this.all.checked);
      this.changed();
    });
    for (const input of this.fields) input.addEventListener("input", () => this.#typed());
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(this.stage);
  }

  attributeChangedCallback(name, _, value) {
    if (name === "src") this.setSource(value).catch(() => {}); // which the element tells itself
    else this.tell();
  }

  connectedCallback() {
    if (this.#open && !this.#frames) this.#show(this.#open, { keep: true }).catch(() => {});
  }

  disconnectedCallback() {
    queueMicrotask(() => !this.isConnected && this.#release());
  }

  #release() {
    this.#loads++;
    this.#frames?.close();
    this.#frames = null;
    this.strip.frames = null;
  }

  /* The source */

  /** Show a picture or a clip, with an empty mask: a Blob, an address, or null for none. */
  setSource(source, { fps = 0, frames = 0 } = {}) {
    return this.#show(source && (() => openFrames(source, { fps, frames })));
  }

  /** Show a clip whose frames the caller has as pictures. */
  setFrames(blobs, { fps = 16 } = {}) {
    return this.#show(() => framesOf(blobs, { fps }));
  }

  async #show(open, { keep = false } = {}) {
    this.#release();
    const load = this.#loads;
    this.#open = open;
    this.hands.drop();
    this.live = null;
    if (!keep) this.mask = null;
    this.alarm.textContent = "";
    this.tell();
    this.redraw();
    if (!open) return this.changed();
    try {
      const frames = await open();
      if (load !== this.#loads) return frames.close();
      this.#frames = frames;
      this.#seconds = frames.seconds;
      this.mask ??= new Mask(frames.width, frames.height, this.hasAttribute("still") ? 1 : frames.count);
      this.stage.style.setProperty("--ratio", frames.width / frames.height);
      this.strip.frames = this.mask.count > 1 ? frames : null;
      this.view.colour = unlike(await frames.at(this.mask.frame));
      this.#fit();
      this.changed();
    } catch (error) {
      if (load !== this.#loads) return;
      this.alarm.textContent = "This file cannot be shown. Choose a PNG, JPEG, WebP, GIF, MP4 or WebM.";
      this.tell();
      throw error;
    }
  }

  async #fit() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !this.#frames) return;
    this.view.resize(width, height);
    this.redraw();
    await this.#drawPicture();
  }

  async #drawPicture() {
    const [frames, mask] = [this.#frames, this.mask];
    const picture = await frames?.at(mask.frame).catch(() => null);
    if (!picture || frames !== this.#frames) return;
    const { width, height } = this.board;
    Object.assign(this.picture, { width, height });
    const context = this.picture.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, width, height);
  }

  #select(frame) {
    if (frame === this.mask.frame) return;
    this.live = null;
    this.mask.select(frame);
    this.#drawPicture();
    this.tell();
    this.redraw();
  }

  /* What the page asks and tells */

  get empty() {
    return this.mask?.empty ?? true;
  }

  /** The part of the shown frame that is masked, 0 to 1. */
  get coverage() {
    return this.mask?.coverage ?? 0;
  }

  get frame() {
    return this.mask?.frame ?? 0;
  }

  set frame(index) {
    if (this.mask) this.#select(clamp(Math.round(index), 0, this.mask.count - 1));
  }

  get tool() {
    return this.#tool;
  }

  set tool(name) {
    if (!(name in this.tools)) return;
    this.#tool = name;
    this.live = null;
    for (const [key, button] of Object.entries(this.tools)) button.setAttribute("aria-pressed", String(key === name));
    this.boxRow.hidden = name !== "box";
    this.sizeLabel.hidden = name === "box";
    this.hands.refresh();
    this.tell();
    this.redraw();
  }

  /** The brush's diameter in pixels of the source. */
  get size() {
    return this.#size * this.#longest;
  }

  set size(pixels) {
    this.#setSize(pixels / this.#longest);
  }

  get #longest() {
    return Math.max(this.mask?.width ?? 1, this.mask?.height ?? 1);
  }

  #setSize(part) {
    this.#size = clamp(part, SMALLEST, LARGEST);
    this.#showSize();
    this.hands.refresh();
  }

  #showSize() {
    this.slider.value = (100 * Math.log(this.#size / SMALLEST)) / Math.log(LARGEST / SMALLEST);
    this.slider.setAttribute("aria-valuetext", `${Math.max(Math.round(this.size), 1)} pixels`);
  }

  /** The box that was drawn last, as long as it can be moved: x, y, w, h in pixels of the source. */
  get box() {
    return this.live && { ...this.live };
  }

  set box(box) {
    this.tool = "box";
    if (this.mask && box) this.setBox(box);
  }

  async toBlob() {
    if (this.mask?.apart) await this.#frames?.measure(); // so that the mask lasts as long as its clip
    return this.mask?.toBlob(this.#seconds) ?? null;
  }

  async toBlobs() {
    return this.mask?.toBlobs() ?? null;
  }

  undo() {
    this.#step("undo");
  }

  redo() {
    this.#step("redo");
  }

  clear() {
    this.#step("clear");
  }

  invert() {
    this.#step("invert");
  }

  #step(name) {
    if (!this.mask || this.hands.stroke) return;
    const before = this.mask.frame;
    this.live = null;
    this.mask[name]();
    if (this.mask.frame !== before) this.#drawPicture();
    this.changed();
  }

  /** Take a mask that was made elsewhere: any picture, for clips a clip too; white = change, fitted to the source. */
  async loadMask(blob) {
    this.file.value = "";
    const mask = this.mask;
    if (!mask) return;
    let frames;
    try {
      frames = await openFrames(blob);
      await mask.take(frames);
    } catch {
      this.alarm.textContent = "This file cannot be read as a mask. Choose a picture that is white where it should change.";
      return;
    } finally {
      frames?.close();
    }
    if (mask !== this.mask) return;
    this.live = null;
    this.changed();
    if (mask.empty) this.alarm.textContent = "This mask is black all over: nothing would change.";
  }

  changed() {
    this.alarm.textContent = "";
    this.tell();
    this.redraw();
    this.dispatchEvent(new Event("change", { bubbles: true, composed: true }));
  }

  tell() {
    const mask = this.mask;
    const none = !mask;
    this.wait.hidden = !none;
    this.wait.textContent = this.alarm.textContent ? "" : this.#open ? "Loading…" : "No picture yet";
    for (const control of [...Object.values(this.tools), this.file, this.slider, ...this.fields]) control.disabled = none;
    this.board.tabIndex = none ? -1 : 0;
    this.acts.undo.disabled = !mask?.canUndo;
    this.acts.redo.disabled = !mask?.canRedo;
    this.acts.invert.disabled = none;
    this.acts.clear.disabled = none || mask.coverage === 0;
    this.frameRow.hidden = none || mask.count < 2;
    if (none) return (this.said.textContent = "");
    this.all.checked = !mask.apart;
    this.strip.marks = mask.apart ? mask.drawn : [];
    this.strip.value = mask.frame;
    this.number.textContent = `${mask.frame + 1} / ${mask.count}`;
    const percent = 100 * mask.coverage;
    const share = percent && percent < 1 ? "less than 1" : Math.round(percent);
    this.said.textContent = mask.empty ? (this.getAttribute("hint") ?? "Paint over what should change.") : `${share} % of the picture is masked.`;
    const box = this.live ?? { x: "", y: "", w: "", h: "" };
    for (const input of this.fields) {
      if (this.shadowRoot.activeElement !== input) input.value = box[input.name];
      input.max = input.name === "x" || input.name === "w" ? mask.width : mask.height;
    }
  }

  redraw() {
    cancelAnimationFrame(this.#asked);
    this.#asked = requestAnimationFrame(() => this.view.draw(this.mask, this.hands.stroke?.box ?? this.live));
  }

  /** The box stays as it is. */
  letGo() {
    this.live = null;
    this.tell();
    this.redraw();
  }

  setBox(box, how) {
    const instead = Boolean(this.live);
    const erase = this.live?.erase ?? false;
    if (instead) this.mask.peel();
    this.live = { ...inside(box, this.mask, how), erase };
    this.mask.rectangle(this.live, { erase });
    this.mask.commit({ instead });
    this.changed();
  }

  #typed() {
    const values = this.fields.map((input) => input.valueAsNumber);
    if (values.every(Number.isFinite) && values[2] > 0 && values[3] > 0) this.setBox({ x: values[0], y: values[1], w: values[2], h: values[3] });
  }
}

customElements.define("mask-editor", MaskEditor);

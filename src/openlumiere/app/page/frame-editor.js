// <frame-editor>: the proportions of a larger frame around a picture or clip, which lies in its middle.
//
//   await editor.setSource(blobOrAddress)   or none: it also works without a picture
//   editor.value    "16:9"; set it likewise
//   editor.unchanged   whether the frame has the source's own proportions, so that nothing would be added
//   event "change"; attributes src, value

import { clamp, h, shadow, sheet } from "./elements.js";
import { openFrames } from "./frames.js";

const NAMED = ["1:1", "4:5", "2:3", "9:16", "5:4", "3:2", "16:9", "21:9"];
const STAGE = 4 / 3; // its own proportions
const FILLED = 0.84; // of the stage, by the frame
const MOST = 4; // the widest frame is 4:1, the tallest 1:4
const SAME = 0.005; // proportions this close add nothing, as the task outpaint has it
const SNAP = 0.02;
const PARTS = 20; // of the shorter side, in which dragged proportions are told
const STEP = 1.05; // of a key press

const look = sheet(`
  :host { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.6rem; }
  .named { display: flex; flex-wrap: wrap; gap: 0.35rem; }
  .named button { display: inline-flex; align-items: center; gap: 0.45rem; padding: 0 0.7rem; font-variant-numeric: tabular-nums; }
  .named i { border: 1.75px solid currentcolor; border-radius: 2px; }
  .stage { position: relative; width: min(100%, calc(var(--stage-height, 52vh) * ${STAGE})); aspect-ratio: ${STAGE}; margin-inline: auto; border: 1px solid var(--_line); border-radius: var(--_radius); background: var(--_card); overflow: clip; touch-action: pan-y; }
  .frame { position: absolute; left: 50%; top: 50%; transform: translate(-50%, -50%); border-radius: 3px; outline: 2px solid var(--_accent);
    background: repeating-linear-gradient(135deg, var(--_chosen) 0 6px, var(--_card) 6px 12px); transition: width 0.2s, height 0.2s; }
  .dragging .frame, .dragging .source { transition: none; }
  .source { position: absolute; left: 50%; top: 50%; transform: translate(-50%, -50%); transition: width 0.2s, height 0.2s; background-color: var(--_line); border-radius: 2px; }
  .edge { position: absolute; touch-action: none; }
  .edge::after { content: ""; position: absolute; inset: 0; margin: auto; background: var(--_card); border: 2px solid var(--_accent); border-radius: 6px; }
  .edge.left, .edge.right { top: 0; bottom: 0; width: 2.5rem; cursor: ew-resize; }
  .edge.left { left: -1.25rem; } .edge.right { right: -1.25rem; }
  .edge.left::after, .edge.right::after { width: 0.75rem; height: 2rem; }
  .edge.top, .edge.bottom { left: 1.25rem; right: 1.25rem; height: 2.5rem; cursor: ns-resize; }
  .edge.top { top: -1.25rem; } .edge.bottom { bottom: -1.25rem; }
  .edge.top::after, .edge.bottom::after { width: 2rem; height: 0.75rem; }
  .edge:focus-visible { outline: none; }
  .edge:focus-visible::after { outline: 3px solid var(--_accent); outline-offset: 3px; }
  @media (prefers-reduced-motion: reduce) { .frame, .source { transition: none; } }
`);

class FrameEditor extends HTMLElement {
  static observedAttributes = ["src", "value"];

  #value = "16:9";
  #ratio = 16 / 9;
  #own = 1; // the source's proportions
  #loads = 0;
  #scale = 0; // frozen while an edge is dragged, so that it stays under the pointer
  #known = false;

  constructor() {
    super();
    this.named = NAMED.map((name) => h("button", { type: "button", click: () => this.#choose(name) }, sample(name), name));
    this.picture = h("canvas", { class: "source checker", "aria-hidden": "true" });
    const edge = (side) =>
      h("div", { class: `edge ${side}`, "aria-hidden": "true", pointerdown: (event) => this.#grab(event), pointermove: (event) => this.#drag(event, side), pointerup: () => this.#drop(), pointercancel: () => this.#drop() });
    this.edges = Object.fromEntries(["left", "top", "right", "bottom"].map((side) => [side, edge(side)]));
    for (const [side, name] of [["right", "Width of the frame"], ["bottom", "Height of the frame"]]) {
      const slider = this.edges[side];
      slider.removeAttribute("aria-hidden");
      const numbers = { role: "slider", tabindex: 0, "aria-label": name, "aria-valuemin": 25, "aria-valuemax": 400 };
      if (side === "bottom") numbers["aria-orientation"] = "vertical";
      for (const [key, value] of Object.entries(numbers)) slider.setAttribute(key, value);
      slider.addEventListener("keydown", (event) => this.#key(event, side));
    }
    this.frame = h("div", { class: "frame" }, ...Object.values(this.edges));
    this.frame.prepend(this.picture);
    this.stage = h("div", { class: "stage" }, this.frame);
    this.said = h("p", { class: "soft", role: "status" });
    this.alarm = h("p", { class: "alarm", role: "alert" });
    shadow(this, look, h("div", { class: "named", role: "group", "aria-label": "Proportions" }, ...this.named), this.stage, this.said, this.alarm);
    this.#lay();
  }

  attributeChangedCallback(name, _, value) {
    if (name === "src") this.setSource(value).catch(() => {}); // which the element tells itself
    else this.value = value;
  }

  get value() {
    return this.#value;
  }

  set value(text) {
    const [width, height] = String(text).split(":").map(Number);
    if (!(width > 0 && height > 0)) return;
    this.#value = `${width}:${height}`;
    this.#ratio = width / height;
    this.#lay();
  }

  get unchanged() {
    return this.#known && Math.abs(Math.log(this.#ratio / this.#own)) < SAME;
  }

  /** Show a picture, or a clip's first frame: a Blob, an address, or null for none. */
  async setSource(source) {
    const load = ++this.#loads;
    this.alarm.textContent = "";
    this.#known = false;
    this.#own = 1;
    this.picture.width = this.picture.height = 0;
    if (source) {
      let frames;
      try {
        frames = await openFrames(source);
        const picture = await frames.at(0);
        if (load === this.#loads) this.#draw(picture);
      } catch (error) {
        if (load !== this.#loads) return;
        this.alarm.textContent = "This file cannot be shown. Choose a PNG, JPEG, WebP, GIF, MP4 or WebM.";
        throw error;
      } finally {
        frames?.close();
      }
    }
    if (load === this.#loads) this.#lay();
  }

  #draw(picture) {
    const scale = Math.min(1024 / Math.max(picture.width, picture.height), 1);
    Object.assign(this.picture, { width: Math.max(picture.width * scale, 1), height: Math.max(picture.height * scale, 1) });
    this.picture.getContext("2d").drawImage(picture, 0, 0, this.picture.width, this.picture.height);
    this.#own = picture.width / picture.height;
    this.#known = true;
  }

  /** The frame's width and height, where the source is `#own` wide and 1 high. */
  get #size() {
    return [Math.max(this.#ratio, this.#own), Math.max(this.#own / this.#ratio, 1)];
  }

  #lay() {
    const [width, height] = this.#size;
    const scale = this.#scale || this.#fitting();
    Object.assign(this.frame.style, { width: `${(100 * scale * width) / STAGE}%`, height: `${100 * scale * height}%` });
    Object.assign(this.picture.style, { width: `${(100 * this.#own) / width}%`, height: `${100 / height}%` });
    for (const button of this.named) button.setAttribute("aria-pressed", String(button.textContent === this.#value));
    for (const [side, part] of [["right", width / this.#own], ["bottom", height]]) {
      this.edges[side].setAttribute("aria-valuenow", clamp(Math.round(100 * part), 25, 400));
      this.edges[side].setAttribute("aria-valuetext", `${Math.round(100 * part)} % of the picture, ${this.#value}`);
    }
    const added = Math.round(100 * (1 - this.#own / (width * height)));
    const where = this.#ratio > this.#own ? "left and right" : "above and below";
    this.said.textContent = !this.#known ? this.#value : this.unchanged ? `${this.#value}, as it is: nothing would be added.` : `${this.#value}: ${added} % of the frame is new, ${where}.`;
  }

  #fitting() {
    const [width, height] = this.#size;
    return FILLED * Math.min(STAGE / width, 1 / height);
  }

  #choose(value) {
    if (value === this.#value) return;
    this.value = value;
    this.dispatchEvent(new Event("change", { bubbles: true, composed: true }));
  }

  /** Take a ratio from a hand: a well-known one near by, or one of small whole numbers. */
  #bring(ratio) {
    ratio = clamp(ratio, 1 / MOST, MOST);
    const near = NAMED.find((name) => Math.abs(Math.log(ratio / ratioOf(name))) < SNAP);
    const [width, height] = ratio > 1 ? [Math.round(PARTS * ratio), PARTS] : [PARTS, Math.round(PARTS / ratio)];
    const common = divisor(width, height);
    this.#choose(near ?? `${width / common}:${height / common}`);
  }

  /* Hands */

  #grab(event) {
    if (event.button > 0) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    this.#scale = this.#fitting();
    this.stage.classList.add("dragging");
  }

  #drag(event, side) {
    if (!this.#scale) return;
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    const across = side === "left" || side === "right";
    const far = across ? Math.abs(event.clientX - left - width / 2) : Math.abs(event.clientY - top - height / 2);
    const size = (2 * far) / (height * this.#scale);
    this.#bring(across ? Math.max(size, this.#own) : this.#own / Math.max(size, 1));
  }

  #drop() {
    this.#scale = 0;
    this.stage.classList.remove("dragging");
    this.#lay();
  }

  #key(event, side) {
    const sign = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 }[event.key];
    if (!sign || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const before = this.#value;
    const factor = STEP ** (side === "right" ? sign : -sign);
    // Far enough to leave the proportions that it snaps to.
    for (let ratio = this.#ratio * factor, i = 0; this.#value === before && i < 4; ratio *= factor, i++) this.#bring(ratio);
  }
}

const ratioOf = (name) => {
  const [width, height] = name.split(":");
  return width / height;
};

const divisor = (a, b) => (b ? divisor(b, a % b) : a);

/** A small frame of the proportions. */
function sample(name) {
  const ratio = ratioOf(name);
  const figure = h("i", { "aria-hidden": "true" });
  const side = 16;
  Object.assign(figure.style, { width: `${ratio > 1 ? side : side * ratio}px`, height: `${ratio > 1 ? side / ratio : side}px` });
  return figure;
}

customElements.define("frame-editor", FrameEditor);

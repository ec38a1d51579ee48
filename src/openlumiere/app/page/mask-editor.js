// <mask-editor>: paint what should change on a picture, or on frames of a clip, by mouse, pen, finger or keyboard.
//
//   await editor.setSource(blobOrAddress, { fps, frames })   or   await editor.setFrames([blob, …], { fps })
//   await editor.toBlob()    PNG at the source's size, white = change; animated if frames have masks of their own; or null
//   await editor.toBlobs()   a PNG for each frame, or null
//   editor.empty, .coverage, .tool ("brush", "eraser", "box"), .size (pixels of the source), .box, .frame
//   editor.undo(), .redo(), .clear(), .invert(), .loadMask(blob)
//   event "change"; attributes src, hint (what an empty mask says), still (only a clip's first frame is painted on);
//   custom property --stage-height

import { clamp, h, icon, iconButton, shadow, sheet } from "./elements.js";
import { framesOf, openFrames } from "./frames.js";
import { FrameStrip, stripStyle } from "./frame-strip.js";
import { Mask } from "./mask.js";
import { MaskView, unlike } from "./mask-view.js";

const SMALLEST = 0.004; // a brush's diameter, as parts of the longer side
const LARGEST = 0.5;
const CORNER = 14; // CSS pixels around a box's corner that pull it
const HELP =
  "Keys: B brush, E eraser, R box, square brackets change the size, Control Z takes back. Brush: arrow keys move, " +
  "space paints, shift with arrow keys draws. Box: arrow keys move it, shift with arrow keys sizes it.";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const look = sheet(`
  :host { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.6rem; }
  .tools { display: flex; flex-wrap: wrap; gap: 0.4rem 0.75rem; align-items: center; }
  .size { display: flex; align-items: center; gap: 0.5rem; flex: 1 1 9rem; max-width: 18rem; }
  .size input { flex: 1 1 4rem; width: 4rem; }
  .stage { position: relative; width: min(100%, calc(var(--stage-height, 62vh) * var(--ratio, 1.5))); aspect-ratio: var(--ratio, 1.5); margin-inline: auto; border-radius: var(--_radius); overflow: clip; overflow-clip-margin: 8px; }
  .stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: inherit; }
  .board { touch-action: pinch-zoom; user-select: none; -webkit-user-select: none; -webkit-touch-callout: none; cursor: crosshair; }
  .board:focus-visible { outline-offset: 2px; }
  .cursor { position: absolute; left: 0; top: 0; border: 1.5px solid #fff; border-radius: 50%; box-shadow: 0 0 0 1.5px #000, inset 0 0 0 1px #000; pointer-events: none; visibility: hidden; }
  .cursor.shown { visibility: visible; }
  .wait { position: absolute; inset: 0; display: grid; place-content: center; text-align: center; padding: 1rem; color: var(--_soft); border: 1px dashed var(--_line); border-radius: inherit; }
  .box { display: grid; grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0.5rem; max-width: 26rem; }
  .box label { display: grid; gap: 0.1rem; color: var(--_soft); }
  .box input { color: var(--_ink); }
  .frames { display: grid; gap: 0.25rem; }
  .frames .row { justify-content: space-between; }
  .frames label { display: flex; gap: 0.4rem; align-items: center; min-height: 2rem; cursor: pointer; }
  .frames input[type="checkbox"] { width: 1.1rem; height: 1.1rem; accent-color: var(--_accent); margin: 0; }
  .upload { display: inline-grid; place-content: center; width: 2.5rem; height: 2.5rem; padding: 0; position: relative; }
  .upload input { position: absolute; inset: 0; opacity: 0; cursor: pointer; font-size: 0; }
`);

class MaskEditor extends HTMLElement {
  static observedAttributes = ["src", "hint"];

  #mask = null;
  #frames = null;
  #open = null; // opens the source's frames, again after the element was away
  #fps = 16;
  #loads = 0;
  #tool = "brush";
  #size = 0.07; // of the longer side
  #stroke = null; // what the pointer that is down does
  #live = null; // the box that was drawn last, as long as it can be moved
  #spot = null; // where the brush is, in pixels of the source
  #asked = 0; // for the next drawing

  constructor() {
    super();
    this.#build();
    this.#listen();
  }

  #build() {
    const tool = (name, label) => iconButton(name, label, () => (this.tool = name), { "aria-pressed": String(name === this.#tool) });
    this.tools = { brush: tool("brush", "Brush (B)"), eraser: tool("eraser", "Eraser (E)"), box: tool("box", "Box (R)") };
    this.acts = {
      undo: iconButton("undo", "Undo (Ctrl+Z)", () => this.undo()),
      redo: iconButton("redo", "Redo (Ctrl+Shift+Z)", () => this.redo()),
      invert: iconButton("invert", "Invert", () => this.invert()),
      clear: iconButton("clear", "Clear", () => this.clear()),
    };
    this.file = h("input", { type: "file", accept: "image/*,video/*", "aria-label": "Upload a mask", title: "Upload a mask: white is what changes" });
    this.slider = h("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "Brush size" });
    this.picture = h("canvas", { class: "checker", "aria-hidden": "true" });
    this.board = h("canvas", { class: "board", tabindex: 0, role: "application", "aria-label": "Mask", "aria-describedby": "help said" });
    this.cursor = h("div", { class: "cursor" });
    this.wait = h("p", { class: "wait" }, "No picture yet");
    this.stage = h("div", { class: "stage" }, this.picture, this.board, this.cursor, this.wait);
    const field = (name, title) => h("input", { type: "number", min: 0, step: 1, inputmode: "numeric", name, "aria-label": title, title });
    this.fields = [field("x", "Box: left"), field("y", "Box: top"), field("w", "Box: width"), field("h", "Box: height")];
    this.boxRow = h("div", { class: "box", role: "group", "aria-label": "Box, in pixels", hidden: true }, ...this.fields.map((input) => h("label", {}, input.name, input)));
    this.strip = new FrameStrip((index) => this.#select(index));
    this.all = h("input", { type: "checkbox", checked: true });
    this.number = h("span", { class: "soft" });
    this.frameRow = h(
      "div", { class: "frames", hidden: true },
      this.strip.element, h("div", { class: "row" }, h("label", {}, this.all, "Same mask on all frames"), this.number),
    );
    this.said = h("p", { id: "said", class: "soft", role: "status" });
    this.alarm = h("p", { class: "alarm", role: "alert" });
    const group = (...buttons) => h("div", { class: "group" }, ...buttons);
    const upload = h("span", { class: "button upload" }, icon("upload"), this.file);
    this.bar = h(
      "div", { class: "tools", role: "group", "aria-label": "Tools" },
      group(...Object.values(this.tools)), group(this.acts.undo, this.acts.redo), group(this.acts.invert, this.acts.clear, upload),
      (this.sizeLabel = h("label", { class: "size" }, "Size", this.slider)),
    );
    const help = h("p", { id: "help", class: "unseen" }, HELP);
    const root = shadow(this, look, this.bar, this.stage, this.boxRow, this.frameRow, this.said, this.alarm, help);
    root.adoptedStyleSheets.push(stripStyle);
    this.view = new MaskView(this.board);
    this.#showSize();
    this.#tell();
  }

  #listen() {
    const { board } = this;
    board.addEventListener("pointerdown", (event) => this.#down(event));
    board.addEventListener("pointermove", (event) => this.#move(event));
    board.addEventListener("pointerup", (event) => this.#up(event));
    board.addEventListener("pointercancel", (event) => this.#cancel(event));
    board.addEventListener("pointerleave", () => !this.#stroke && this.#point(null));
    board.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press draws
    board.addEventListener("focus", () => board.matches(":focus-visible") && this.#point(this.#spot ?? this.#middle()));
    board.addEventListener("blur", () => this.#point(null));
    this.addEventListener("keydown", (event) => this.#key(event));
    this.slider.addEventListener("input", () => this.#setSize(SMALLEST * (LARGEST / SMALLEST) ** (this.slider.value / 100)));
    this.file.addEventListener("change", () => this.file.files[0] && this.loadMask(this.file.files[0]));
    this.all.addEventListener("change", () => {
      this.#live = null;
      this.#mask.keepApart(!this.all.checked);
      this.#changed();
    });
    for (const input of this.fields) input.addEventListener("input", () => this.#typed());
    this.observer = new ResizeObserver(() => this.#fit());
    this.observer.observe(this.stage);
  }

  attributeChangedCallback(name, _, value) {
    if (name === "src") this.setSource(value).catch(() => {}); // which the element tells itself
    else this.#tell();
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
    this.#live = null;
    if (!keep) this.#mask = null;
    this.alarm.textContent = "";
    this.#tell();
    this.#draw();
    if (!open) return this.#changed();
    try {
      const frames = await open();
      if (load !== this.#loads) return frames.close();
      this.#frames = frames;
      this.#fps = frames.count / frames.duration;
      this.#mask ??= new Mask(frames.width, frames.height, this.hasAttribute("still") ? 1 : frames.count);
      this.stage.style.setProperty("--ratio", frames.width / frames.height);
      this.strip.frames = this.#mask.count > 1 ? frames : null;
      this.view.colour = unlike(await frames.at(this.#mask.frame));
      this.#fit();
      this.#changed();
    } catch (error) {
      if (load !== this.#loads) return;
      this.alarm.textContent = "This file cannot be shown. Choose a PNG, JPEG, WebP, GIF, MP4 or WebM.";
      this.#tell();
      throw error;
    }
  }

  async #fit() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    if (!width || !this.#frames) return;
    this.view.resize(width, height);
    this.#draw();
    await this.#drawPicture();
  }

  async #drawPicture() {
    const [frames, mask] = [this.#frames, this.#mask];
    const picture = await frames?.at(mask.frame).catch(() => null);
    if (!picture || frames !== this.#frames) return;
    const { width, height } = this.board;
    Object.assign(this.picture, { width, height });
    const context = this.picture.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.drawImage(picture, 0, 0, width, height);
  }

  #select(frame) {
    if (frame === this.#mask.frame) return;
    this.#live = null;
    this.#mask.select(frame);
    this.#drawPicture();
    this.#tell();
    this.#draw();
  }

  /* What the page asks and tells */

  get empty() {
    return this.#mask?.empty ?? true;
  }

  /** The part of the shown frame that is masked, 0 to 1. */
  get coverage() {
    return this.#mask?.coverage ?? 0;
  }

  get frame() {
    return this.#mask?.frame ?? 0;
  }

  set frame(index) {
    if (this.#mask) this.#select(clamp(Math.round(index), 0, this.#mask.count - 1));
  }

  get tool() {
    return this.#tool;
  }

  set tool(name) {
    if (!(name in this.tools)) return;
    this.#tool = name;
    this.#live = null;
    for (const [key, button] of Object.entries(this.tools)) button.setAttribute("aria-pressed", String(key === name));
    this.boxRow.hidden = name !== "box";
    this.sizeLabel.hidden = name === "box";
    this.#point(null);
    this.#tell();
    this.#draw();
  }

  /** The brush's diameter in pixels of the source. */
  get size() {
    return this.#size * this.#longest;
  }

  set size(pixels) {
    this.#setSize(pixels / this.#longest);
  }

  get #longest() {
    return Math.max(this.#mask?.width ?? 1, this.#mask?.height ?? 1);
  }

  #setSize(part) {
    this.#size = clamp(part, SMALLEST, LARGEST);
    this.#showSize();
    if (this.#spot && this.cursor.classList.contains("shown")) this.#point(this.#spot);
  }

  #showSize() {
    this.slider.value = (100 * Math.log(this.#size / SMALLEST)) / Math.log(LARGEST / SMALLEST);
    this.slider.setAttribute("aria-valuetext", `${Math.max(Math.round(this.size), 1)} pixels`);
  }

  /** The box that was drawn last, as long as it can be moved: x, y, w, h in pixels of the source. */
  get box() {
    return this.#live && { ...this.#live };
  }

  set box(box) {
    this.tool = "box";
    if (this.#mask && box) this.#setBox(box);
  }

  toBlob() {
    return Promise.resolve(this.#mask?.toBlob(this.#fps) ?? null);
  }

  toBlobs() {
    return Promise.resolve(this.#mask?.toBlobs() ?? null);
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
    if (!this.#mask || this.#stroke) return;
    const before = this.#mask.frame;
    this.#live = null;
    this.#mask[name]();
    if (this.#mask.frame !== before) this.#drawPicture();
    this.#changed();
  }

  /** Take a mask that was made elsewhere: any picture, for clips a clip too; white = change, fitted to the source. */
  async loadMask(blob) {
    this.file.value = "";
    const mask = this.#mask;
    if (!mask) return;
    this.alarm.textContent = "";
    let frames;
    try {
      frames = await openFrames(blob, { fps: this.#fps });
      await mask.take(frames);
    } catch {
      this.alarm.textContent = "This file cannot be read as a mask. Choose a picture that is white where it should change.";
      return;
    } finally {
      frames?.close();
    }
    if (mask !== this.#mask) return;
    this.#live = null;
    this.#changed();
    if (mask.empty) this.alarm.textContent = "This mask is black all over: nothing would change.";
  }

  #changed() {
    this.#tell();
    this.#draw();
    this.dispatchEvent(new Event("change", { bubbles: true, composed: true }));
  }

  #tell() {
    const mask = this.#mask;
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
    const box = this.#live ?? { x: "", y: "", w: "", h: "" };
    for (const input of this.fields) {
      if (this.shadowRoot.activeElement !== input) input.value = box[input.name];
      input.max = input.name === "x" || input.name === "w" ? mask.width : mask.height;
    }
  }

  #draw() {
    cancelAnimationFrame(this.#asked);
    this.#asked = requestAnimationFrame(() => this.view.draw(this.#mask, this.#stroke?.box ?? this.#live));
  }

  /* The pointer */

  #place({ clientX, clientY }) {
    const { left, top, width, height } = this.board.getBoundingClientRect();
    return [((clientX - left) * this.#mask.width) / width, ((clientY - top) * this.#mask.height) / height];
  }

  #middle() {
    return this.#mask ? [this.#mask.width / 2, this.#mask.height / 2] : null;
  }

  /** Show the brush where it is, in its size; null hides it. */
  #point(spot) {
    const shown = Boolean(spot && this.#mask && this.#tool !== "box");
    this.cursor.classList.toggle("shown", shown);
    if (spot) this.#spot = spot;
    if (!shown) return;
    const scale = this.board.clientWidth / this.#mask.width;
    const side = Math.max(this.size * scale, 4);
    Object.assign(this.cursor.style, { width: `${side}px`, height: `${side}px` });
    this.cursor.style.transform = `translate(${spot[0] * scale - side / 2}px, ${spot[1] * scale - side / 2}px)`;
  }

  #down(event) {
    if (!this.#mask || this.#stroke || event.button > 0 && event.button !== 5) return;
    this.alarm.textContent = "";
    try {
      this.board.setPointerCapture(event.pointerId);
    } catch {
      // A pointer that is gone already; its events come without.
    }
    const at = this.#place(event);
    const erase = this.#tool === "eraser" || event.altKey || event.button === 5; // the back of a pen
    if (this.#tool === "box") this.#stroke = { id: event.pointerId, erase, ...this.#grip(at), at };
    else {
      const from = event.shiftKey && this.#spot ? this.#spot : at; // with shift a straight line from where the brush was
      this.#stroke = { id: event.pointerId, erase, last: at, middle: at };
      const width = this.#width(event);
      this.#mask.dot(...at, width, { erase });
      if (from !== at) this.#mask.curve(from, from, at, width, { erase });
    }
    this.#point(at);
    this.#draw();
  }

  #width({ pointerType, pressure }) {
    return this.size * (pointerType === "pen" && pressure ? 0.25 + 0.75 * pressure : 1);
  }

  #move(event) {
    if (!this.#mask) return;
    const stroke = this.#stroke;
    if (!stroke) {
      if (event.pointerType !== "touch") this.#point(this.#place(event));
      return;
    }
    if (event.pointerId !== stroke.id) return;
    const at = this.#place(event);
    if (this.#tool === "box") this.#pull(stroke, at);
    else {
      const passed = event.getCoalescedEvents?.() ?? [];
      for (const one of passed.length ? passed : [event]) this.#go(stroke, this.#place(one), this.#width(one));
    }
    this.#point(at);
    this.#draw();
  }

  /** Go on with a stroke, through the middles of what the pointer passed: smooth, whatever its pace. */
  #go(stroke, to, width) {
    const middle = [(stroke.last[0] + to[0]) / 2, (stroke.last[1] + to[1]) / 2];
    this.#mask.curve(stroke.middle, stroke.last, middle, width, stroke);
    Object.assign(stroke, { last: to, middle, width });
  }

  #up(event) {
    const stroke = this.#stroke;
    if (event.pointerId !== stroke?.id) return;
    this.#stroke = null;
    if (this.#tool !== "box") {
      if (stroke.width) this.#mask.curve(stroke.middle, stroke.last, stroke.last, stroke.width, stroke);
      this.#mask.commit();
    } else if (stroke.box) {
      this.#mask.commit({ instead: Boolean(this.#live) });
      this.#live = { ...stroke.box, erase: stroke.erase };
    } else if (stroke.grip === "new") this.#live = null; // a click beside it lets go of it
    if (event.pointerType === "touch") this.#point(null);
    this.#changed();
  }

  #cancel(event) {
    if (event.pointerId !== this.#stroke?.id) return;
    this.#stroke = null; // two fingers zoom the page
    this.#mask.revert();
    this.#point(null);
    this.#draw();
  }

  /* The box */

  /** What a pointer takes hold of: a corner, told by the opposite one, the whole box, or a new one. */
  #grip([x, y]) {
    const box = this.#live;
    const reach = (CORNER * this.#mask.width) / this.board.clientWidth;
    if (box) {
      for (const left of [true, false]) {
        for (const top of [true, false]) {
          const corner = [left ? box.x : box.x + box.w, top ? box.y : box.y + box.h];
          if (Math.hypot(x - corner[0], y - corner[1]) < reach) return { grip: "corner", erase: box.erase, from: [left ? box.x + box.w : box.x, top ? box.y + box.h : box.y] };
        }
      }
      if (x > box.x && x < box.x + box.w && y > box.y && y < box.y + box.h) return { grip: "move", erase: box.erase, from: [x - box.x, y - box.y] };
    }
    return { grip: "new", from: [x, y] };
  }

  #pull(stroke, [x, y]) {
    if (stroke.grip === "new" && this.#live) this.#live = null;
    const [fromX, fromY] = stroke.from;
    const { w, h } = this.#live ?? {};
    const wanted =
      stroke.grip === "move"
        ? { x: x - fromX, y: y - fromY, w, h }
        : { x: Math.min(x, fromX), y: Math.min(y, fromY), w: Math.abs(x - fromX), h: Math.abs(y - fromY) };
    stroke.box = this.#inside(wanted, { move: stroke.grip === "move" });
    if (this.#live) this.#mask.peel();
    else this.#mask.revert();
    this.#mask.rectangle(stroke.box, stroke);
  }

  /** A box in whole pixels, inside the picture: moved there, or cut. */
  #inside({ x, y, w, h }, { move = false } = {}) {
    const { width, height } = this.#mask;
    const side = (at, length, whole) => {
      if (move) length = clamp(Math.round(length), 1, whole);
      const from = clamp(Math.round(at), 0, move ? whole - length : whole - 1);
      const to = move ? from + length : clamp(Math.round(at + length), from + 1, whole);
      return [from, to - from];
    };
    const [[left, wide], [top, tall]] = [side(x, w, width), side(y, h, height)];
    return { x: left, y: top, w: wide, h: tall };
  }

  #setBox(box, how) {
    const instead = Boolean(this.#live);
    const erase = this.#live?.erase ?? false;
    if (instead) this.#mask.peel();
    this.#live = { ...this.#inside(box, how), erase };
    this.#mask.rectangle(this.#live, { erase });
    this.#mask.commit({ instead });
    this.#changed();
  }

  #typed() {
    const values = this.fields.map((input) => input.valueAsNumber);
    if (values.every(Number.isFinite) && values[2] > 0 && values[3] > 0) this.#setBox({ x: values[0], y: values[1], w: values[2], h: values[3] });
  }

  /* The keyboard */

  #key(event) {
    const target = event.composedPath()[0];
    if (!this.#mask || this.#stroke || target.type === "number") return;
    const control = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    const plain = !control && !event.altKey;
    if (event.key === "[" || event.key === "]") this.#setSize(this.#size * (event.key === "]" ? 1.2 : 1 / 1.2)); // AltGr on many keyboards
    else if (control && key === "z") event.shiftKey ? this.redo() : this.undo();
    else if (control && key === "y") this.redo();
    else if (plain && { b: 1, e: 1, r: 1 }[key]) this.tool = { b: "brush", e: "eraser", r: "box" }[key];
    else if (plain && target === this.board && event.key in ARROWS) this.#arrow(ARROWS[event.key], event.shiftKey);
    else if (plain && target === this.board && event.key === " " && this.#tool !== "box") this.#dab();
    else if (plain && target === this.board && ["Enter", "Escape"].includes(event.key) && this.#live) {
      this.#live = null; // it stays as it is
      this.#tell();
      this.#draw();
    } else return;
    event.preventDefault();
  }

  #arrow([x, y], shift) {
    const { width, height } = this.#mask;
    if (this.#tool === "box") {
      const step = Math.max(Math.round(this.#longest / 64), 1);
      const box = this.#live;
      if (!box) this.#setBox({ x: width / 4, y: height / 4, w: width / 2, h: height / 2 });
      else if (shift) this.#setBox({ ...box, w: Math.max(box.w + x * step, 1), h: Math.max(box.h + y * step, 1) });
      else this.#setBox({ ...box, x: box.x + x * step, y: box.y + y * step }, { move: true });
      return;
    }
    const from = this.#spot ?? this.#middle();
    const step = Math.max(this.size / 2, 1);
    const to = [clamp(from[0] + x * step, 0, width), clamp(from[1] + y * step, 0, height)];
    this.#point(to);
    if (!shift) return;
    this.#mask.curve(from, from, to, this.size, { erase: this.#tool === "eraser" });
    this.#mask.commit();
    this.#changed();
  }

  #dab() {
    const at = this.#spot ?? this.#middle();
    this.#point(at);
    this.#mask.dot(...at, this.size, { erase: this.#tool === "eraser" });
    this.#mask.commit();
    this.#changed();
  }
}

customElements.define("mask-editor", MaskEditor);

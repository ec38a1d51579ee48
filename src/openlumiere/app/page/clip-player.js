// <clip-player>: plays a clip in a loop, frame by frame, on several grounds, beside its source by a slider.
//
//   attributes  src, mp4 (the same clip for browsers without ImageDecoder), fps, frames (where the file does not tell),
//               compare (address of the source), fit ("cover", "contain": how the source lies in the frame), label,
//               ground ("checker", "white", "black", "#rrggbb"), paused
//   properties  .src, .compare (addresses, or Blobs), .index, .count, .paused, .split (0 to 1)
//   methods     play(), pause(), step(n), seek(index), frame() -> canvas, toBlob() -> Promise<PNG of the frame>
//   events      "ready", "frame" (detail: index, count, seconds), "play", "pause", "error"

import { clamp, h } from "./elements.js";
import { openFrames, seesThrough } from "./frames.js";
import { buildParts, GROUNDS } from "./player-parts.js";

const AHEAD = 2; // frames that are decoded before they are due
const calm = window.matchMedia("(prefers-reduced-motion: reduce)");

class ClipPlayer extends HTMLElement {
  static observedAttributes = ["src", "mp4", "fps", "frames", "compare", "fit", "ground", "label"];

  #clip = null; // Frames
  #other = null; // those of what it is compared with
  #clear = false; // the ground is seen
  #given = {}; // Blobs in place of addresses
  #index = 0;
  #wanted = 0; // the frame that was asked for last
  #loads = 0;
  #otherLoads = 0;
  #playing = false;
  #seen = true; // on the screen
  #timer = 0;
  #due = 0;
  #queued = false;

  constructor() {
    super();
    Object.assign(this, buildParts(this));
    this.#ground();
    this.addEventListener("keydown", (event) => this.#key(event));
    for (const name of ["pointerdown", "pointermove"]) this.handle.addEventListener(name, (event) => this.#drag(event));
    this.handle.addEventListener("keydown", (event) => this.#slide(event));
    this.observer = new IntersectionObserver(([{ isIntersecting }]) => this.#look(isIntersecting));
  }

  /* Opening and closing */

  connectedCallback() {
    this.observer.observe(this.stage);
    document.addEventListener("visibilitychange", this.#awake);
    this.#reload();
  }

  disconnectedCallback() {
    this.observer.disconnect();
    document.removeEventListener("visibilitychange", this.#awake);
    this.#release();
  }

  attributeChangedCallback(name, before, value) {
    if (name === "ground") this.#ground();
    else if (name === "label") this.canvas.setAttribute("aria-label", value ?? "Clip");
    else if (name === "fit") this.stage.style.setProperty("--fit", value === "contain" ? "contain" : "cover");
    else {
      if (name === "src" || name === "compare") delete this.#given[name];
      this.#reload(name === "compare" ? "compare" : "src");
    }
  }

  /** Load after all attributes of one turn are set. */
  #reload(what = "src") {
    if (what === "src") this.#release();
    if (!this.isConnected || this.#queued) return;
    this.#queued = true;
    queueMicrotask(() => {
      this.#queued = false;
      if (!this.isConnected) return;
      if (!this.#clip) this.#load();
      this.#loadOther();
    });
  }

  async #load() {
    const source = this.#given.src ?? this.getAttribute("src");
    const load = ++this.#loads;
    this.wait.textContent = source ? "Loading…" : "";
    this.wait.hidden = false;
    if (!source) return;
    this.halt = new AbortController();
    try {
      const [fps, frames] = [Number(this.getAttribute("fps")), Number(this.getAttribute("frames"))];
      const clip = await openFrames(source, { fps, frames, mp4: this.getAttribute("mp4"), signal: this.halt.signal });
      if (load !== this.#loads) return clip.close();
      this.#clip = clip;
      Object.assign(this.canvas, { width: clip.width, height: clip.height });
      this.stage.style.setProperty("--ratio", clip.width / clip.height);
      this.slider.max = clip.count;
      this.#clear = clip.transparent && seesThrough(await clip.at(0));
      if (load !== this.#loads) return;
      this.bar.hidden = clip.count < 2 && !this.#clear;
      this.grounds.hidden = !this.#clear;
      this.#ground();
      await this.#show(0);
      if (load !== this.#loads) return;
      this.wait.hidden = true;
      this.dispatchEvent(new Event("ready"));
      if (clip.count > 1 && !calm.matches && !this.hasAttribute("paused")) this.play();
    } catch (error) {
      if (load !== this.#loads) return;
      this.wait.textContent = "This clip could not be shown.";
      this.dispatchEvent(new ErrorEvent("error", { error, message: error.message }));
    }
  }

  async #loadOther() {
    const load = ++this.#otherLoads;
    this.#other?.close();
    this.#other = null;
    const source = this.#given.compare ?? this.getAttribute("compare");
    this.#compare(false);
    if (!source) return;
    try {
      const other = await openFrames(source);
      if (load !== this.#otherLoads) return other.close();
      this.#other = other;
      Object.assign(this.source, { width: other.width, height: other.height });
      this.#compare(true);
      if (this.#clip) await this.#show(this.#wanted);
    } catch (error) {
      if (load === this.#otherLoads) this.dispatchEvent(new ErrorEvent("error", { error, message: error.message }));
    }
  }

  #compare(shown) {
    for (const element of [this.source, this.handle, ...this.names]) element.hidden = !shown;
    if (shown) this.split = 0.5;
    else this.stage.style.removeProperty("--split");
  }

  #release() {
    this.#loads++;
    this.#otherLoads++;
    this.halt?.abort();
    clearTimeout(this.#timer);
    this.#playing = false;
    this.#buttons();
    for (const frames of [this.#clip, this.#other]) frames?.close();
    this.#clip = this.#other = null;
    this.#index = this.#wanted = 0;
    for (const canvas of [this.canvas, this.source]) canvas.width = canvas.height = 0; // gives their memory back
  }

  /* What the page asks */

  get src() {
    return this.#given.src ?? this.getAttribute("src");
  }

  set src(source) {
    this.#give("src", source);
  }

  get compare() {
    return this.#given.compare ?? this.getAttribute("compare");
  }

  set compare(source) {
    this.#give("compare", source);
  }

  #give(name, source) {
    if (source instanceof Blob) {
      this.removeAttribute(name);
      this.#given[name] = source;
      this.#reload(name);
    } else if (source) this.setAttribute(name, source);
    else {
      delete this.#given[name];
      this.removeAttribute(name);
      this.#reload(name);
    }
  }

  get index() {
    return this.#index;
  }

  get count() {
    return this.#clip?.count ?? 0;
  }

  get paused() {
    return !this.#playing;
  }

  get ground() {
    return this.getAttribute("ground") ?? "checker";
  }

  set ground(name) {
    this.setAttribute("ground", name);
  }

  get split() {
    return Number.parseFloat(this.stage.style.getPropertyValue("--split")) / 100 || 0;
  }

  /** Where the source ends and the clip begins, 0 (all clip) to 1 (all source). */
  set split(part) {
    const percent = Math.round(1000 * clamp(part, 0, 1)) / 10;
    this.stage.style.setProperty("--split", `${percent}%`);
    this.handle.setAttribute("aria-valuenow", Math.round(percent));
    this.handle.setAttribute("aria-valuetext", `${Math.round(percent)} % source`);
  }

  play() {
    if (this.#playing || this.count < 2) return;
    this.#playing = true;
    this.#buttons();
    this.#awake();
    this.dispatchEvent(new Event("play"));
  }

  pause() {
    if (!this.#playing) return;
    this.#playing = false;
    clearTimeout(this.#timer);
    this.#buttons();
    this.dispatchEvent(new Event("pause"));
  }

  toggle() {
    if (this.#playing) this.pause();
    else this.play();
  }

  step(frames) {
    if (this.count) return this.#jump(this.#wanted + frames);
  }

  seek(index) {
    return this.#jump(index);
  }

  #jump(index) {
    if (!this.count) return;
    this.pause();
    return this.#show(((Number(index) % this.count) + this.count) % this.count);
  }

  /** The frame that is shown, at the clip's own size, as a canvas of the caller's. */
  frame() {
    const { width, height } = this.canvas;
    const own = h("canvas", { width, height });
    if (width) own.getContext("2d").drawImage(this.canvas, 0, 0);
    return own;
  }

  toBlob(type = "image/png") {
    return new Promise((resolve) => this.frame().toBlob(resolve, type));
  }

  /* Playing */

  #awake = () => {
    clearTimeout(this.#timer);
    if (!this.#playing || !this.#seen || document.hidden) return; // nobody looks: nothing is decoded or drawn
    this.#due = performance.now() + 1000 * this.#clip.seconds[this.#index];
    this.#tick();
  };

  #look(seen) {
    if (seen === this.#seen) return;
    this.#seen = seen;
    this.#awake();
  }

  #tick() {
    this.#timer = setTimeout(async () => {
      const load = this.#loads;
      try {
        await this.#show((this.#index + 1) % this.#clip.count);
      } catch (error) {
        if (load !== this.#loads) return;
        this.pause();
        this.dispatchEvent(new ErrorEvent("error", { error, message: error.message }));
      }
      if (!this.#playing || load !== this.#loads || !this.#seen || document.hidden) return;
      // A machine that is too slow plays slower, but shows every frame.
      this.#due = Math.max(this.#due + 1000 * this.#clip.seconds[this.#index], performance.now());
      clearTimeout(this.#timer);
      this.#tick();
    }, Math.max(this.#due - performance.now(), 0));
  }

  /** Draw a frame, and what it is compared with at the same time of its own clip; a later call overtakes it. */
  async #show(index) {
    const [clip, other] = [this.#clip, this.#other];
    this.#wanted = index;
    const picture = await clip.at(index);
    const beside = await other?.at(this.#partner(index));
    if (clip !== this.#clip || index !== this.#wanted) return;
    this.#index = index;
    paint(this.canvas, picture);
    if (beside && other === this.#other) paint(this.source, beside);
    this.slider.value = index + 1;
    this.slider.setAttribute("aria-valuetext", `frame ${index + 1} of ${clip.count}`);
    this.number.textContent = `${index + 1} / ${clip.count}`;
    this.dispatchEvent(new CustomEvent("frame", { detail: { index, count: clip.count, seconds: clip.timeOf(index) } }));
    if (!this.#playing) return;
    for (let i = 1; i <= AHEAD; i++) clip.at((index + i) % clip.count).catch(() => {});
    if (other) other.at(this.#partner((index + 1) % clip.count)).catch(() => {});
  }

  #partner(index) {
    return this.#other.count === this.#clip.count ? index : this.#other.numberAt(this.#clip.timeOf(index));
  }

  #buttons() {
    const focused = this.shadowRoot.activeElement;
    this.buttons.play.hidden = this.#playing;
    this.buttons.pause.hidden = !this.#playing;
    if (focused === this.buttons.play || focused === this.buttons.pause) this.buttons[this.#playing ? "pause" : "play"].focus();
  }

  #ground() {
    const name = this.ground;
    const own = !(name in GROUNDS);
    this.stage.classList.toggle("checker", name === "checker" && this.#clear);
    this.stage.classList.toggle("plain", name !== "checker");
    this.stage.style.setProperty("--ground", name);
    for (const input of this.grounds.querySelectorAll("[type=radio]")) input.checked = input.value === name;
    this.own.classList.toggle("set", own);
    if (own) this.own.style.setProperty("--own", name);
  }

  /* Hands */

  #key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || !this.count) return;
    const target = event.composedPath()[0];
    if (event.key === ",") this.step(-1);
    else if (event.key === ".") this.step(1);
    else if (event.key === " " && !["BUTTON", "LABEL"].includes(target.tagName) && !["color", "radio"].includes(target.type)) this.toggle();
    else return;
    event.preventDefault();
  }

  #drag(event) {
    if (event.type === "pointerdown") this.handle.setPointerCapture(event.pointerId);
    else if (!this.handle.hasPointerCapture(event.pointerId)) return;
    const { left, width } = this.stage.getBoundingClientRect();
    this.split = (event.clientX - left) / width;
  }

  #slide(event) {
    const step = { ArrowLeft: -0.05, ArrowDown: -0.05, ArrowRight: 0.05, ArrowUp: 0.05, Home: -1, End: 1, PageDown: -0.2, PageUp: 0.2 }[event.key];
    if (!step) return;
    event.preventDefault();
    this.split += step;
  }
}

function paint(canvas, picture) {
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "copy"; // also its transparency
  context.drawImage(picture, 0, 0);
}

customElements.define("clip-player", ClipPlayer);

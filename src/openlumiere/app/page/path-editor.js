// <path-editor>: way points of a subject, and the smooth path through them.
//
//   editor.value    [[x, y], …], from 0 to 1 of the frame, from its left and its top, and what else a point tells, see
//                   path.js; fields for that belong to the point that was touched last
//   await editor.setSource(blobOrAddress)   a picture to draw on; it also works without one
//   event "change"; attributes src, loop (the path comes round)

import { clamp, h, iconButton, shadow, sheet } from "./elements.js";
import { openFrames } from "./frames.js";
import { curve, DEGREES, isTimed, plain, SIZE, TIME, timeOf } from "./path.js";

const STEP = 0.02; // of the frame, by an arrow key; five times as far with shift
const NEAR = 0.04; // of the frame: a click this close to the path puts a point into it
const TICKS = 16; // dots on the path, evenly spaced in time
const PIECES = 24; // that the curve is drawn in, from point to point
// What a point may tell besides its place: how it is shown, and what the others get that tell nothing yet.
const MORE = [
  { column: SIZE, name: "Size, %", unit: 100, min: 1, max: 200, others: 0.75 },
  { column: DEGREES, name: "Turned, °", unit: 1, others: 0 },
  { column: TIME, name: "Met at, %", unit: 100, min: 0, max: 100 },
];
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

const look = sheet(`
  :host { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.6rem; }
  .stage { position: relative; width: min(100%, calc(var(--stage-height, 42vh) * var(--ratio, 1))); aspect-ratio: var(--ratio, 1); margin-inline: auto; border: 1px solid var(--_line); border-radius: var(--_radius); touch-action: none; cursor: crosshair;
    background: linear-gradient(var(--_line) 1px, transparent 1px) 0 -0.5px / 25% 25%, linear-gradient(90deg, var(--_line) 1px, transparent 1px) -0.5px 0 / 25% 25%, var(--_card); }
  .stage canvas, .stage svg { position: absolute; inset: 0; width: 100%; height: 100%; border-radius: inherit; pointer-events: none; }
  .stage svg { overflow: visible; }
  .stage path { fill: none; vector-effect: non-scaling-stroke; }
  .under { stroke: var(--_card); stroke-width: 6px; }
  .line { stroke: var(--_accent); stroke-width: 2.5px; }
  .ticks { stroke: var(--_accent); stroke-width: 7px; }
  .point { position: absolute; width: 1.75rem; height: 1.75rem; min-height: 0; margin: -0.875rem; padding: 0; border-radius: 50%; border: 2px solid var(--_card); background: var(--_accent); color: var(--_on-accent); font-size: 0.75rem; font-weight: 700; line-height: 1; box-shadow: 0 0 0 1px var(--_accent); cursor: grab; touch-action: none; }
  .point::before { content: ""; position: absolute; inset: -0.5rem; border-radius: 50%; }
  .point:active { cursor: grabbing; }
  .stage.empty::after { content: "Click where the subject goes"; position: absolute; inset: 0; display: grid; place-content: center; padding: 1rem; text-align: center; color: var(--_soft); pointer-events: none; }
  .point[aria-current] { box-shadow: 0 0 0 3px var(--_accent); }
  .row p { flex: 1; }
  .more label { display: grid; gap: 0.2rem; flex: 1 1 5rem; color: var(--_soft); }
  .more input { color: var(--_ink); }
`);

class PathEditor extends HTMLElement {
  static observedAttributes = ["src", "loop"];

  #points = [];
  #held = null; // the point under the pointer
  #chosen = null; // the point that was touched last
  #loads = 0;

  constructor() {
    super();
    this.picture = h("canvas", { "aria-hidden": "true" });
    const path = (name) => h("path", { class: name });
    this.lines = { under: path("under"), line: path("line"), ticks: path("ticks") };
    this.drawing = h("svg", { viewBox: "0 0 1 1", preserveAspectRatio: "none", "aria-hidden": "true" }, ...Object.values(this.lines));
    this.stage = h("div", { class: "stage", role: "group", "aria-label": "Path", "aria-describedby": "help" }, this.picture, this.drawing);
    this.said = h("p", { class: "soft", role: "status" });
    this.alarm = h("p", { class: "alarm", role: "alert" });
    this.acts = {
      add: h("button", { type: "button", click: () => this.#append() }, "Add a point"),
      remove: iconButton("undo", "Remove the last point", () => this.#remove(this.#points.length - 1)),
      clear: iconButton("clear", "Clear", () => ((this.#points = []), this.#changed())),
    };
    this.more = h("div", { class: "row more", role: "group" }, ...MORE.map(({ column, name, unit, min, max }) => {
      const input = h("input", { type: "number", step: "any", placeholder: "open", change: () => this.#tell(column, input.value === "" ? null : Number(input.value) / unit) });
      if (min !== undefined) Object.assign(input, { min, max });
      return h("label", {}, name, input);
    }));
    const help = h("p", { id: "help", class: "unseen" }, "Arrow keys move a point, delete removes it. Clicking on the path puts a point into it.");
    shadow(this, look, this.stage, h("div", { class: "row" }, this.said, ...Object.values(this.acts)), this.more, this.alarm, help);
    this.stage.addEventListener("focusin", (event) => this.#choose(this.buttons.indexOf(event.target)));
    this.stage.addEventListener("pointerdown", (event) => this.#down(event));
    this.stage.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) this.stage.addEventListener(name, () => this.#drop());
    this.stage.addEventListener("dblclick", (event) => this.#remove(this.buttons.indexOf(event.target)));
    this.stage.addEventListener("keydown", (event) => this.#key(event));
    this.#lay();
  }

  attributeChangedCallback(name, _, value) {
    if (name === "src") this.setSource(value).catch(() => {}); // which the element tells itself
    else this.#lay();
  }

  get value() {
    return this.#points.map(([x, y, ...rest]) => plain([Math.round(1000 * x) / 1000, Math.round(1000 * y) / 1000, ...rest]));
  }

  set value(points) {
    this.#points = (points ?? []).map(([x, y, ...rest]) => [clamp(x, 0, 1), clamp(y, 0, 1), ...rest]);
    this.#choose(null);
  }

  /** Show a picture, or a clip's first frame, under the path: a Blob, an address, or null for none. */
  async setSource(source) {
    const load = ++this.#loads;
    this.alarm.textContent = "";
    this.picture.width = this.picture.height = 0;
    this.stage.style.removeProperty("--ratio");
    if (!source) return;
    let frames;
    try {
      frames = await openFrames(source);
      const picture = await frames.at(0);
      if (load !== this.#loads) return;
      Object.assign(this.picture, { width: picture.width, height: picture.height });
      this.picture.getContext("2d").drawImage(picture, 0, 0);
      this.stage.style.setProperty("--ratio", picture.width / picture.height);
    } catch (error) {
      if (load !== this.#loads) return;
      this.alarm.textContent = "This file cannot be shown. Choose a PNG, JPEG, WebP, GIF, MP4 or WebM.";
      throw error;
    } finally {
      frames?.close();
    }
  }

  get buttons() {
    return [...this.stage.querySelectorAll(".point")];
  }

  #changed() {
    this.#lay();
    this.dispatchEvent(new Event("change", { bubbles: true, composed: true }));
  }

  #lay() {
    const points = this.#points;
    const buttons = this.buttons;
    for (const extra of buttons.slice(points.length)) extra.remove();
    points.forEach(([x, y], index) => {
      const button = buttons[index] ?? this.stage.appendChild(h("button", { type: "button", class: "point" }, String(index + 1)));
      Object.assign(button.style, { left: `${100 * x}%`, top: `${100 * y}%` });
      button.toggleAttribute("aria-current", index === this.#chosen);
      button.setAttribute("aria-label", `Point ${index + 1} of ${points.length}: ${Math.round(100 * x)} % from the left, ${Math.round(100 * y)} % from the top`);
    });
    const loop = this.hasAttribute("loop");
    const line = points.length > 1 ? svgPath(curve(points, loop, PIECES * segments(points, loop))) : "";
    this.lines.under.setAttribute("d", line);
    this.lines.line.setAttribute("d", line);
    this.lines.ticks.setAttribute("d", points.length > 1 ? curve(points, loop, TICKS).map(([x, y]) => `M${x} ${y}h0`).join("") : "");
    this.stage.classList.toggle("empty", points.length === 0);
    this.said.textContent = ["The model chooses the path.", "It stays at one place.", `${points.length} points, met at ${isTimed(points) ? "their" : "even"} times.`][Math.min(points.length, 2)];
    const chosen = points[this.#chosen];
    this.more.hidden = !chosen;
    this.more.setAttribute("aria-label", `Point ${this.#chosen + 1}`);
    [...this.more.querySelectorAll("input")].forEach((input, index) => {
      const { column, unit } = MORE[index];
      const told = chosen?.[column] ?? null;
      input.value = told === null ? "" : String(Math.round(told * unit * 10) / 10);
    });
    this.acts.remove.disabled = this.acts.clear.disabled = points.length === 0;
  }

  #choose(index) {
    this.#chosen = index in this.#points ? index : null;
    this.#lay();
  }

  /** Set what the chosen point tells; null leaves it open. Size and angle are told by all points, or by none. */
  #tell(column, value) {
    const chosen = this.#points[this.#chosen];
    if (!chosen || Number.isNaN(value)) return this.#lay();
    if (column === TIME) chosen[TIME] = value === null ? null : this.#between(value);
    else {
      for (const point of this.#points) {
        for (const { column: each, others } of MORE.slice(0, -1)) {
          if (value === null ? each >= column : each <= column) point[each] = value === null ? null : (point[each] ?? others);
        }
      }
      if (value !== null) chosen[column] = column === SIZE ? clamp(value, 0.01, 2) : value;
    }
    this.#changed();
  }

  /** The time nearest to one asked for that lies between those of the points before and after. */
  #between(time) {
    const known = (points) => points.map(timeOf).filter((each) => each !== null);
    const before = known(this.#points.slice(0, this.#chosen)).at(-1);
    const after = known(this.#points.slice(this.#chosen + 1))[0];
    const least = 0.01; // for each point that is passed
    return clamp(time, before === undefined ? least * this.#chosen : before + least, after === undefined ? 1 - least * (this.#points.length - 1 - this.#chosen) : after - least);
  }

  /* Hands */

  #at({ clientX, clientY }) {
    const { left, top, width, height } = this.stage.getBoundingClientRect();
    return [clamp((clientX - left) / width, 0, 1), clamp((clientY - top) / height, 0, 1)];
  }

  #down(event) {
    if (event.button > 0 || this.#held !== null) return;
    const point = this.buttons.indexOf(event.target);
    if (point < 0) event.preventDefault(); // the new point gets the focus
    this.#held = point < 0 ? this.#insert(this.#at(event)) : point;
    this.stage.setPointerCapture(event.pointerId);
    this.buttons[this.#held].focus({ preventScroll: true });
  }

  #move(event) {
    if (this.#held === null) return;
    this.#points[this.#held].splice(0, 2, ...this.#at(event));
    this.#changed();
  }

  #drop() {
    this.#held = null;
  }

  /** Put a point into the path if it is near to it, else to its end; return its number. */
  #insert(at) {
    const loop = this.hasAttribute("loop");
    const count = this.#points.length > 1 ? PIECES * segments(this.#points, loop) : 0;
    const line = count ? curve(this.#points, loop, count) : [];
    const far = line.map(([x, y]) => Math.hypot(x - at[0], y - at[1]));
    const nearest = far.indexOf(Math.min(...far));
    const index = far[nearest] < NEAR ? line[nearest][2] + 1 : this.#points.length;
    const place = Math.min(index, this.#points.length);
    this.#points.splice(place, 0, [...at, ...(this.#points[Math.max(place - 1, 0)] ?? []).slice(SIZE, TIME)]);
    this.#changed();
    return place;
  }

  #append() {
    const [x, y, ...rest] = this.#points.at(-1) ?? [0.4, 0.5];
    if (rest.length === TIME - 1) rest.pop(); // the last one's time
    this.#points.push([x > 0.85 ? x - 0.1 : x + 0.1, y, ...rest]);
    this.#changed();
    this.buttons.at(-1).focus();
  }

  #remove(index) {
    if (!(index in this.#points)) return;
    const focused = this.buttons.includes(this.shadowRoot.activeElement);
    this.#points.splice(index, 1);
    if (this.#chosen >= index) this.#chosen = null;
    this.#changed();
    if (focused) (this.buttons[Math.min(index, this.#points.length - 1)] ?? this.acts.add).focus();
  }

  #key(event) {
    const index = this.buttons.indexOf(event.target);
    if (index < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const point = this.#points[index];
    if (event.key in ARROWS) {
      const step = event.shiftKey ? 5 * STEP : STEP;
      const [x, y] = ARROWS[event.key];
      point.splice(0, 2, clamp(point[0] + x * step, 0, 1), clamp(point[1] + y * step, 0, 1));
      this.#changed();
    } else if (event.key === "Delete" || event.key === "Backspace") this.#remove(index);
    else return;
    event.preventDefault();
  }
}

const segments = (points, loop) => points.length - (loop ? 0 : 1);

const svgPath = (places) => places.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(4)} ${y.toFixed(4)}`).join("");

customElements.define("path-editor", PathEditor);

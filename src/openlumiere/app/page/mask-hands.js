// The hands on a <mask-editor>: mouse, pen, finger and keyboard become strokes and boxes on its mask.

import { clamp } from "./elements.js";
import { BoxStroke, BrushStroke } from "./strokes.js";

const CORNER = 14; // CSS pixels around a box's corner that pull it
const LIGHTEST = 0.25; // of the brush's diameter, under the lightest pen
const GROWTH = 1.2; // of the brush, by a bracket key
const PARTS = 64; // of the longer side: an arrow key moves a box by one
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const TOOLS = { b: "brush", e: "eraser", r: "box" };

export class MaskHands {
  #editor;
  #pointer = 0; // which one is down
  #spot = null; // where the brush is, in pixels of the source
  stroke = null; // what the pointer that is down does

  constructor(editor) {
    this.#editor = editor;
    const { board } = editor;
    board.addEventListener("pointerdown", (event) => this.#down(event));
    board.addEventListener("pointermove", (event) => this.#move(event));
    board.addEventListener("pointerup", (event) => this.#up(event));
    board.addEventListener("pointercancel", (event) => event.pointerId === this.#pointer && this.drop());
    board.addEventListener("pointerleave", () => this.stroke || this.#point(null));
    board.addEventListener("contextmenu", (event) => event.preventDefault()); // a long press draws
    board.addEventListener("focus", () => board.matches(":focus-visible") && this.#point(this.#place()));
    board.addEventListener("blur", () => this.#point(null));
    editor.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Where a pointer is, in pixels of the source; without one, where the brush is. */
  #place(event) {
    const { mask, board } = this.#editor;
    if (!event) return this.#spot ?? (mask && [mask.width / 2, mask.height / 2]);
    const { left, top, width, height } = board.getBoundingClientRect();
    return [((event.clientX - left) * mask.width) / width, ((event.clientY - top) * mask.height) / height];
  }

  /** Show the brush where it is, in its size; null hides it. */
  #point(spot) {
    const { mask, board, cursor, tool, size } = this.#editor;
    const shown = Boolean(spot && mask && tool !== "box");
    cursor.classList.toggle("shown", shown);
    if (spot) this.#spot = spot;
    if (!shown) return;
    const scale = board.clientWidth / mask.width;
    const side = Math.max(size * scale, 4);
    Object.assign(cursor.style, { width: `${side}px`, height: `${side}px` });
    cursor.style.transform = `translate(${spot[0] * scale - side / 2}px, ${spot[1] * scale - side / 2}px)`;
  }

  /** The tool or its size is another one. */
  refresh() {
    this.#point(this.#editor.cursor.classList.contains("shown") ? this.#spot : null);
  }

  /** Forget what a pointer has begun, as when two fingers zoom the page or another picture comes. */
  drop() {
    if (!this.stroke) return;
    this.stroke = null;
    this.#editor.mask?.revert();
    this.#point(null);
    this.#editor.redraw();
  }

  /* Mouse, pen and finger */

  #down(event) {
    const { mask, board, tool, live } = this.#editor;
    const back = event.button === 5; // of a pen
    if (!mask || this.stroke || (event.button > 0 && !back)) return;
    try {
      board.setPointerCapture(event.pointerId);
    } catch {
      // A pointer that is gone already; its events come without.
    }
    const at = this.#place(event);
    const erase = tool === "eraser" || event.altKey || back;
    this.#pointer = event.pointerId;
    if (tool === "box") this.stroke = new BoxStroke(mask, { at, erase, live, reach: (CORNER * mask.width) / board.clientWidth });
    else {
      const from = event.shiftKey && this.#spot ? this.#spot : at; // with shift a straight line from where the brush was
      this.stroke = new BrushStroke(mask, { at, from, width: this.#width(event), erase });
    }
    this.#point(at);
    this.#editor.redraw();
  }

  #width({ pointerType, pressure }) {
    return this.#editor.size * (pointerType === "pen" && pressure ? LIGHTEST + (1 - LIGHTEST) * pressure : 1);
  }

  #move(event) {
    if (!this.#editor.mask) return;
    if (!this.stroke) {
      if (event.pointerType !== "touch") this.#point(this.#place(event));
      return;
    }
    if (event.pointerId !== this.#pointer) return;
    const passed = this.#editor.tool === "box" ? [] : (event.getCoalescedEvents?.() ?? []);
    for (const one of passed.length ? passed : [event]) this.stroke.go(this.#place(one), this.#width(one));
    this.#point(this.#place(event));
    this.#editor.redraw();
  }

  #up(event) {
    if (!this.stroke || event.pointerId !== this.#pointer) return;
    this.#editor.live = this.stroke.end();
    this.stroke = null;
    if (event.pointerType === "touch") this.#point(null);
    this.#editor.changed();
  }

  /* The keyboard */

  #key(event) {
    const editor = this.#editor;
    const target = event.composedPath()[0];
    if (!editor.mask || this.stroke || target.type === "number") return;
    const control = event.ctrlKey || event.metaKey;
    const plain = !control && !event.altKey;
    const key = event.key.toLowerCase();
    if (key === "[" || key === "]") editor.size *= key === "]" ? GROWTH : 1 / GROWTH; // with AltGr on many keyboards
    else if (control && (key === "y" || (key === "z" && event.shiftKey))) editor.redo();
    else if (control && key === "z") editor.undo();
    else if (plain && key in TOOLS) editor.tool = TOOLS[key];
    else if (!plain || target !== editor.board || !this.#draw(event)) return;
    event.preventDefault();
  }

  /** Draw by a key; return whether it does so. */
  #draw({ key, shiftKey }) {
    const editor = this.#editor;
    const isBox = editor.tool === "box";
    if (key in ARROWS && isBox) this.#shift(ARROWS[key], shiftKey);
    else if (key in ARROWS) this.#walk(ARROWS[key], shiftKey);
    else if (key === " " && !isBox) this.#paint(this.#place(), this.#place());
    else if ((key === "Enter" || key === "Escape") && editor.live) editor.letGo();
    else return false;
    return true;
  }

  #shift([x, y], resize) {
    const { mask, live } = this.#editor;
    const { width, height } = mask;
    const step = Math.max(Math.round(Math.max(width, height) / PARTS), 1);
    if (!live) this.#editor.setBox({ x: width / 4, y: height / 4, w: width / 2, h: height / 2 });
    else if (resize) this.#editor.setBox({ ...live, w: Math.max(live.w + x * step, 1), h: Math.max(live.h + y * step, 1) });
    else this.#editor.setBox({ ...live, x: live.x + x * step, y: live.y + y * step }, { move: true });
  }

  #walk([x, y], paint) {
    const { mask, size } = this.#editor;
    const from = this.#place();
    const step = Math.max(size / 2, 1);
    const to = [clamp(from[0] + x * step, 0, mask.width), clamp(from[1] + y * step, 0, mask.height)];
    this.#point(to);
    if (paint) this.#paint(from, to);
  }

  #paint(from, at) {
    const { mask, size, tool } = this.#editor;
    new BrushStroke(mask, { at, from, width: size, erase: tool === "eraser" }).end();
    this.#point(at);
    this.#editor.changed();
  }
}

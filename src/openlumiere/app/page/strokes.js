// What a pointer does on a mask from its press to its release. All places and lengths are in pixels of the source.

import { clamp } from "./elements.js";

/** Paints or erases, smoothly whatever the pointer's pace: through the middles of the places that it passed. */
export class BrushStroke {
  #mask;
  #how;
  #last;
  #middle;
  #width = 0;

  /** @param from where a straight line to `at` begins, if one is wanted. */
  constructor(mask, { at, from = at, width, erase }) {
    this.#mask = mask;
    this.#how = { erase };
    this.#last = this.#middle = at;
    mask.dot(...at, width, this.#how);
    if (from !== at) mask.curve(from, from, at, width, this.#how);
  }

  go(to, width) {
    const middle = [(this.#last[0] + to[0]) / 2, (this.#last[1] + to[1]) / 2];
    this.#mask.curve(this.#middle, this.#last, middle, width, this.#how);
    this.#last = to;
    this.#middle = middle;
    this.#width = width;
  }

  end() {
    if (this.#width) this.#mask.curve(this.#middle, this.#last, this.#last, this.#width, this.#how);
    this.#mask.commit();
    return null;
  }
}

/** Draws a box, or moves or sizes the one that was drawn last. */
export class BoxStroke {
  #mask;
  #live;
  #grip;
  #from;
  #erase;
  box = null; // as it is under way

  /**
   * @param live the box that was drawn last, as long as it can be moved, or null.
   * @param reach how near to a corner a press takes hold of it.
   */
  constructor(mask, { at, erase, live, reach }) {
    this.#mask = mask;
    this.#erase = erase;
    this.#grip = "new";
    this.#from = at;
    if (live) this.#take(live, at, reach);
  }

  #take(live, [x, y], reach) {
    const { x: left, y: top, w, h } = live;
    for (const [cornerX, oppositeX] of [[left, left + w], [left + w, left]]) {
      for (const [cornerY, oppositeY] of [[top, top + h], [top + h, top]]) {
        if (Math.hypot(x - cornerX, y - cornerY) < reach) return this.#hold(live, "corner", [oppositeX, oppositeY]);
      }
    }
    if (x > left && x < left + w && y > top && y < top + h) this.#hold(live, "middle", [x - left, y - top]);
  }

  #hold(live, grip, from) {
    this.#live = live;
    this.#erase = live.erase;
    this.#grip = grip;
    this.#from = from;
  }

  go([x, y]) {
    const [fromX, fromY] = this.#from;
    const move = this.#grip === "middle";
    const wanted = move
      ? { ...this.#live, x: x - fromX, y: y - fromY }
      : { x: Math.min(x, fromX), y: Math.min(y, fromY), w: Math.abs(x - fromX), h: Math.abs(y - fromY) };
    this.box = { ...inside(wanted, this.#mask, { move }), erase: this.#erase };
    if (this.#live) this.#mask.peel();
    else this.#mask.revert();
    this.#mask.rectangle(this.box, this.box);
  }

  /** Return the box that can now be moved; a click without a drag lets go of one that it misses. */
  end() {
    if (!this.box) return this.#live ?? null;
    this.#mask.commit({ instead: Boolean(this.#live) });
    return this.box;
  }
}

/** A box in whole pixels, inside a picture: brought there as it is, or cut. */
export function inside({ x, y, w, h }, { width, height }, { move = false } = {}) {
  const side = (at, length, whole) => {
    const kept = move ? clamp(Math.round(length), 1, whole) : 1;
    const from = clamp(Math.round(at), 0, whole - kept);
    return [from, move ? kept : clamp(Math.round(at + length), from + 1, whole) - from];
  };
  const [[left, wide], [top, tall]] = [side(x, w, width), side(y, h, height)];
  return { x: left, y: top, w: wide, h: tall };
}

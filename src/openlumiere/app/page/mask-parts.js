// What <mask-editor> consists of, and its look.

import { h, icon, iconButton, shadow, sheet } from "./elements.js";
import { FrameStrip, stripStyle } from "./frame-strip.js";

const HELP =
  "Keys: B brush, E eraser, R box, square brackets change the size, Control Z takes back. Brush: arrow keys move, " +
  "space paints, shift with arrow keys draws. Box: arrow keys move it, shift with arrow keys sizes it.";

const look = sheet(`
  :host { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.6rem; }
  .tools { display: flex; flex-wrap: wrap; gap: 0.4rem 0.75rem; align-items: center; }
  .size { display: flex; align-items: center; gap: 0.5rem; flex: 1 1 7rem; max-width: 18rem; }
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

/** Fill an editor's shadow root; return the parts that it works with. */
export function buildParts(editor, choose) {
  const tool = (name, label) => iconButton(name, label, () => (editor.tool = name), { "aria-pressed": String(name === "brush") });
  const tools = { brush: tool("brush", "Brush (B)"), eraser: tool("eraser", "Eraser (E)"), box: tool("box", "Box (R)") };
  const acts = {
    undo: iconButton("undo", "Undo (Ctrl+Z)", () => editor.undo()),
    redo: iconButton("redo", "Redo (Ctrl+Shift+Z)", () => editor.redo()),
    invert: iconButton("invert", "Invert", () => editor.invert()),
    clear: iconButton("clear", "Clear", () => editor.clear()),
  };
  const file = h("input", { type: "file", accept: "image/*,video/*", "aria-label": "Upload a mask", title: "Upload a mask: white is what changes" });
  const slider = h("input", { type: "range", min: 0, max: 100, step: 1, "aria-label": "Brush size" });
  const sizeLabel = h("label", { class: "size" }, "Size", slider);
  const group = (...buttons) => h("div", { class: "group" }, ...buttons);
  const bar = h(
    "div", { class: "tools", role: "group", "aria-label": "Tools" },
    group(...Object.values(tools)), group(acts.undo, acts.redo),
    group(acts.invert, acts.clear, h("span", { class: "button upload" }, icon("upload"), file)), sizeLabel,
  );
  const picture = h("canvas", { class: "checker", "aria-hidden": "true" });
  const board = h("canvas", { class: "board", tabindex: 0, role: "application", "aria-label": "Mask", "aria-describedby": "help said" });
  const cursor = h("div", { class: "cursor" });
  const wait = h("p", { class: "wait" });
  const stage = h("div", { class: "stage" }, picture, board, cursor, wait);
  const fields = Object.entries({ x: "left", y: "top", w: "width", h: "height" }).map(([name, title]) =>
    h("input", { type: "number", min: 0, step: 1, inputmode: "numeric", name, "aria-label": `Box: ${title}`, title: `Box: ${title}` }));
  const labelled = fields.map((input) => h("label", {}, input.name, input));
  const boxRow = h("div", { class: "box", role: "group", "aria-label": "Box, in pixels", hidden: true }, ...labelled);
  const strip = new FrameStrip(choose);
  const all = h("input", { type: "checkbox", checked: true });
  const number = h("span", { class: "soft" });
  const frameRow = h(
    "div", { class: "frames", hidden: true },
    strip.element, h("div", { class: "row" }, h("label", {}, all, "Same mask on all frames"), number),
  );
  const said = h("p", { id: "said", class: "soft", role: "status" });
  const alarm = h("p", { class: "alarm", role: "alert" });
  const help = h("p", { id: "help", class: "unseen" }, HELP);
  shadow(editor, look, bar, stage, boxRow, frameRow, said, alarm, help).adoptedStyleSheets.push(stripStyle);
  return { tools, acts, file, slider, sizeLabel, picture, board, cursor, wait, stage, fields, boxRow, strip, all, number, frameRow, said, alarm };
}

/** Where something is drawn on the source: a region, a larger frame, or the subject's path. */

import { complain, labelled } from "./fields.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";
import { openFrames } from "./frames.js";

/** A mask painted on the picture, or on frames of the clip. */
export function regionField() {
  const editor = h("mask-editor");
  const field = labelled(["mask", "box"], "", editor, { group: true });
  editor.addEventListener("change", () => complain(field, ""));
  return {
    ...field,
    say: (what) => { field.element.querySelector(".label").textContent = `Paint what should ${what}`; },
    /** Show a source; `region`, of settings, is a mask (a Blob) or a box (four numbers, as the server takes them). */
    async open(source, region = null) {
      await editor.setSource(source);
      if (region instanceof Blob) await editor.loadMask(region);
      else if (region) editor.box = await pixels(region, source);
    },
    file: () => editor.toBlob(),
    read: () => ({}),
    fill() {},
  };
}

/** The proportions of a larger frame. */
export function frameField() {
  const editor = h("frame-editor");
  const field = labelled(["to"], "Drag the frame", editor, { group: true });
  editor.addEventListener("change", () => complain(field, ""));
  return {
    ...field,
    open: (source) => editor.setSource(source),
    read: () => (editor.value ? { to: editor.value.split(":").map(Number) } : {}),
    fill: (request) => { editor.value = (request.to ?? [16, 9]).join(":"); },
  };
}

/** Where the subject goes, through way points. */
export function pathField() {
  const editor = h("path-editor");
  const field = labelled(["path"], "Path of the subject", editor, { group: true });
  const element = h("details.more", {}, h("summary", {}, icon("path"), "Path of the subject"), field.element);
  return {
    ...field, element,
    read: () => (editor.value?.length ? { path: editor.value } : {}),
    fill(request) {
      editor.value = request.path ?? [];
      element.open = editor.value.length > 0;
    },
  };
}

/** A box in pixels, of one in pixels or, where no number is above 1, in fractions of the source. */
async function pixels(box, source) {
  let [x, y, w, h] = box;
  if (Math.max(...box) <= 1) {
    const frames = await openFrames(source);
    [x, y, w, h] = [x * frames.width, y * frames.height, w * frames.width, h * frames.height].map(Math.round);
    frames.close();
  }
  return { x, y, w, h };
}

/** Requests as the server tells them (plain JSON), and as it is asked (the fields of a form). */

import * as api from "./api.js";
import { pathText } from "./path.js";

const OTHERWISE = new Set(["source", "mask", "last", "references", "output"]);  // files go by themselves
const TEXTS = {
  box: (box) => ["box", box.join(",")],
  to: (to) => ["to", to.join(":")],
  size: (size) => ["size", size.join("x")],
  path: (path) => ["path", pathText(path)],
  styles: (styles) => ["style", JSON.stringify(Object.fromEntries(styles))],
};
const DEFAULTS = { planner: true, background: "white", fit: "crop", feather: 0, outline: 0, outline_colour: "white" };

/** What the server is sent for a request. `files`: `{input_reference, last_frame, mask}`, each a File or a video's id, and `reference`, several. */
export function formOf(request, files = {}, more = {}) {
  const { sticker, ...plain } = request;
  const every = { ...plain, ...(sticker ? { ...sticker, target: undefined, sticker: sticker.target } : {}), ...more };
  const form = new FormData();
  for (const [key, value] of Object.entries(every)) {
    if (value === undefined || value === null || value === "" || OTHERWISE.has(key) || value === DEFAULTS[key]) continue;
    if (Array.isArray(value) && !value.length) continue;
    const [name, text] = TEXTS[key]?.(value) ?? [key, String(value)];
    form.set(name, text);
  }
  for (const [name, given] of Object.entries(files)) {
    for (const file of [given].flat()) {
      if (file instanceof Blob) form.append(name, file, file.name ?? `${name}.png`);
      else if (file) form.append(name, file);
    }
  }
  return form;
}

// By their names in requests: what the server calls them where they are asked for, and where they are sent.
const FILES = { source: ["source", "input_reference"], mask: ["mask", "mask"], last: ["last_frame", "last_frame"] };

/** The files that a video was made from, as `formOf` takes them. */
export async function filesOf(video) {
  const file = async (kept, name) => {
    const { blob } = await api.download(api.sourceOf(video.id, kept));
    return new File([blob], name, { type: blob.type });
  };
  const names = Object.keys(FILES).filter((name) => video.request[name]);
  const found = await Promise.all(names.map(async (name) => {
    const [kept, param] = FILES[name];
    return [param, await file(kept, video.request[name])];
  }));
  const reference = await Promise.all((video.request.references ?? []).map((name, n) => file(`reference-${n}`, name)));
  return { ...Object.fromEntries(found), ...(reference.length ? { reference } : {}) };
}

/** Make a video once more; `seed` null asks for another one. */
export async function again(video, { seed } = {}) {
  const request = { ...video.request, ...(seed === undefined ? {} : { seed }) };
  return api.create(formOf(request, await filesOf(video), { model: video.model }));
}

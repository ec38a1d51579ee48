/** Fields for a picture or clip to start from: chosen, dropped, pasted, or one of the user's own videos. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { icon } from "./icons.js";

/**
 * @typedef {{value: File | string, url: string, name: string, film: boolean, still: boolean}} Source
 * A file or a video's id, where it can be seen, whether that takes a `<video>`, and whether it surely does not move.
 */

export const sourceOfFile = (file) => ({
  value: file, url: URL.createObjectURL(file), name: file.name, film: file.type.startsWith("video/"),
  still: file.type.startsWith("image/") && !/gif|webp|apng|avif/.test(file.type),
});

export const sourceOfVideo = (video) => ({
  value: video.id, url: api.contentOf(video.id, { format: "webp" }), name: video.prompt || "your clip", film: false,
  still: false,
});

/** Show a picture, an animated one, or a film; all play by themselves. */
export function media(source, label) {
  if (!source.film) return h("img", { src: source.url, alt: label, decoding: "async" });
  return h("video", {
    src: source.url, muted: true, loop: true, autoplay: true, playsInline: true, "aria-label": label,
  });
}

/** Pictures, as many as the model takes: `most()`. */
export function picturesField(param, label, { hint, most }) {
  const input = h("input.unseen", {
    type: "file", accept: "image/*", multiple: true, "aria-label": label,
    onchange: () => set([...current, ...[...input.files].map(sourceOfFile)]),
  });
  const well = h("label.well", {}, input, icon("upload"), h("span.well-words", {}, hint));
  const shown = h("div.pictures");
  const error = h("p.error", { hidden: true, id: `${param}-error` });
  const element = h("div.field", {}, h("span.label", {}, label), shown, well, error);
  let current = [];

  function set(sources) {
    for (const source of current) if (!sources.includes(source)) URL.revokeObjectURL(source.url);
    current = sources.slice(0, most());
    input.value = "";
    well.hidden = current.length >= most();
    shown.replaceChildren(...current.map((source) => h("div.shown", {}, media(source, `${label}: ${source.name}`),
      h("span.name", {}, source.name), h("button.quiet", {
        type: "button", onclick: () => { set(current.filter((one) => one !== source)); input.focus(); },
      }, icon("close"), "Remove"))));
  }

  return { params: [param, "references"], element, set, get: () => current };
}

export function sourceField(param, label, { hint, changed }) {
  const input = h("input.unseen", {
    type: "file", accept: "image/*,video/*,.apng", onchange: () => input.files[0] && set(sourceOfFile(input.files[0])),
  });
  const words = h("span.well-words");
  const well = h("label.well", {}, input, icon("upload"), words);
  const shown = h("div.shown", { hidden: true });
  const error = h("p.error", { hidden: true, id: `${param}-error` });
  const title = h("span.label");
  const element = h("div.field", {}, title, well, shown, error);
  let current = null;

  for (const type of ["dragenter", "dragover"]) {
    well.addEventListener(type, (event) => {
      event.preventDefault();
      event.stopPropagation();
      well.classList.add("over");
    });
  }
  well.addEventListener("dragleave", () => well.classList.remove("over"));
  well.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    well.classList.remove("over");
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) set(sourceOfFile(event.dataTransfer.files[0]));
  });

  function set(source) {
    if (current && current.value instanceof Blob) URL.revokeObjectURL(current.url);
    current = source;
    input.value = "";
    well.hidden = source !== null;
    shown.hidden = source === null;
    shown.replaceChildren(...(source ? [
      media(source, `${label()}: ${source.name}`), h("span.name", {}, source.name),
      h("button.quiet", { type: "button", onclick: () => { set(null); input.focus(); } }, icon("close"), "Remove"),
    ] : []));
    changed?.();
  }

  return {
    params: [param], element, set,
    get: () => current,
    say() {
      title.textContent = label();
      words.textContent = hint();
      input.setAttribute("aria-label", label());
    },
  };
}

/** The videos that wait or are being made: a row each. */

import { stop } from "./actions.js";
import * as api from "./api.js";
import { $, announce, h } from "./dom.js";
import { icon } from "./icons.js";
import { titleOf } from "./tasks.js";
import { isRunning, videos } from "./videos.js";
import { doing } from "./words.js";

/** @param choose called with the id of a row that is clicked. Returns a function that is told what is shown large. */
export function showRunning(choose) {
  const rows = new Map();
  let large = null;
  const place = $("running");
  const list = h("ul.jobs");
  place.append(h("h2", { id: "running-title" }, "In the works"), list);
  const draw = ({ detail: video }) => {
    const row = rows.get(video.id);
    if (videos.get(video.id) && isRunning(video)) {
      if (row) row.update(video);
      else {
        const made = makeRow(video, choose);
        rows.set(video.id, made);
        list.append(made.element);
      }
    } else if (row) {
      row.element.remove();
      rows.delete(video.id);
      if (video.status === "completed") announce(`Ready: ${titleOf(video)}`);
      else if (video.status === "failed") announce(`Not made: ${video.error?.message ?? ""}`);
    }
    show();
  };
  // One that is alone, and shown large, need not be told twice.
  const show = () => { place.hidden = rows.size === 0 || (rows.size === 1 && rows.has(large)); };
  videos.addEventListener("change", draw);
  videos.addEventListener("gone", draw);
  return (id) => {
    large = id;
    show();
  };
}

function makeRow(video, choose) {
  const picture = h("span.preview");
  const words = h("span.soft");
  const bar = h("progress", { max: 100, value: 0, "aria-label": "Progress" });
  const end = h("button.round", {
    type: "button", title: "Stop", "aria-label": `Stop: ${titleOf(video)}`,
    onclick: () => stop(video, end),
  }, icon("stop"));
  const open = h("button.open", { type: "button", onclick: () => choose(video.id) }, picture,
    h("span.words", {}, h("span.prompt", {}, titleOf(video)), words));
  const element = h("li.job", {}, open, end, bar);
  const update = (now) => {
    drawPreview(picture, now);
    words.textContent = doing(now);
    bar.value = now.progress ?? 0;
  };
  update(video);
  return { element, update };
}

/** Put the latest preview into an element, keeping what it shows until that is there. */
export function drawPreview(place, video) {
  const version = String(video.preview ?? 0);
  if (version === "0" || place.dataset.version === version) return;
  place.dataset.version = version;
  const picture = h("img", { alt: "", src: api.previewOf(video) });
  picture.decode().then(() => {
    if (place.dataset.version === version) place.replaceChildren(picture);
  }).catch(() => {});  // it was replaced by a newer one, or the clip is done
}

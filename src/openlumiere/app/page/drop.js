/** Files dropped or pasted anywhere: a clip of ours brings its settings back, any other becomes what to start from. */

import * as api from "./api.js";
import { h } from "./dom.js";
import { sourceOfFile } from "./source.js";
import { taskOf } from "./tasks.js";
import { failed, toast } from "./toast.js";

/** @param composer the form. */
export function takeDrops(composer) {
  const body = document.body;
  const curtain = h("div.curtain", { hidden: true }, h("p", {}, "Drop a picture or a clip. One of ours brings its settings back."));
  body.append(curtain);
  let depth = 0;
  const over = (inside) => {
    depth = inside ? depth : 0;
    curtain.hidden = !inside;
  };
  body.addEventListener("dragenter", (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    depth += 1;
    over(true);
  });
  body.addEventListener("dragleave", () => { if (--depth <= 0) over(false); });
  body.addEventListener("dragover", (event) => event.preventDefault());
  body.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    if (event.dataTransfer.files[0]) take(composer, event.dataTransfer.files[0]);
  });
  body.addEventListener("paste", (event) => {
    const file = event.clipboardData.files[0];
    if (!file) return;
    event.preventDefault();
    take(composer, file);
  });
}

async function take(composer, file) {
  const asSource = () => start(composer, sourceOfFile(file));
  try {
    const { request, model } = await api.inspect(file);
    composer.chooseModel(model);
    composer.fill(request);
    toast("Its settings are in the form", { action: { name: "Use the clip itself", run: asSource } });
  } catch (error) {
    if (error.status === 400) asSource();
    else failed(error);
  }
}

/** Start from a file with the task at hand, if that takes it; else stills move, and clips get another look. */
function start(composer, source) {
  const fits = composer.task.source === "picture" || (composer.task.source && !source.still);
  composer.start(source, fits ? composer.task : taskOf(source.still ? "animate" : "restyle"));
}

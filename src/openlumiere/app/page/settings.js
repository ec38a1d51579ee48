/** The form's fields, laid out, and which of them a task of a model has. */

import { isForeign, lengths, offers, terms } from "./abilities.js";
import { frameField, pathField, regionField } from "./canvas.js";
import { h } from "./dom.js";
import {
  choiceField, colourField, countField, numberField, promptField, rangeField, seedField, sizeField, stylesField,
  switchField,
} from "./fields.js";
import { icon } from "./icons.js";
import { picturesField, sourceField } from "./source.js";
import { stickerField } from "./sticker.js";
import { TASKS, serverTask } from "./tasks.js";

const LONGEST = 160;  // frames, on the slider
const MOST_CLIPS = 8;
const EMULATED = "This model was not made for that: at every step what is given is put back, or the clip starts from a "
  + "noisy version of what is given. Expect less than of a model that was.";

/** @param now `{task(), model(), seed(), opened()}`: what is chosen, the last clip's seed, and a new source to look at. */
export function makeFields(now, limits) {
  const kind = () => now.task().source ?? "picture";
  const percent = (value) => `${Math.round(value * 100)} %`;
  return {
    source: sourceField("input_reference", () => (kind() === "clip" ? "Clip" : "Picture"), {
      hint: () => `Choose or drop a ${kind()}`, changed: now.opened,
    }),
    last: sourceField("last_frame", () => (offers(now.model(), "last_frame_needed") ? "Last frame" : "Last frame, if you like"), { hint: () => "A picture to end with" }),
    references: picturesField("reference", "What is to be in it, if you like", {
      hint: "Choose pictures", most: () => now.model().references,
    }),
    region: regionField(),
    to: frameField(),
    prompt: promptField("prompt", "Prompt", { rows: 3, placeholder: "a tiger walking to the left" }),
    strength: rangeField("strength", "How much changes", {
      range: () => ({ min: 0, max: 1, step: 0.05 }), start: () => 0.7, say: percent,
    }),
    factor: choiceField("factor", "Frames", { 2: "2 ×", 3: "3 ×", 4: "4 ×" }, { start: "2", parse: Number }),
    sticker: stickerField(),
    length: rangeField("num_frames", "Length", {
      range: () => lengths(now.model(), Math.min(limits.num_frames ?? LONGEST, LONGEST)),
      start: () => (now.task().id === "extend" ? now.model().num_frames / 2 : now.model().num_frames),
      say: (frames) => `${(frames / now.model().fps).toFixed(1)} s`, params: ["num_frames", "seconds"],
    }),
    size: sizeField(),
    loop: switchField("loop", "Loop"),
    transparent: switchField("transparent", "Transparent"),
    styles: stylesField(() => now.model().styles ?? []),
    path: pathField(),
    planner: switchField("planner", "Plan where the subject goes", { start: true }),
    negative_prompt: promptField("negative_prompt", "Not this", { placeholder: "what to keep away from" }),
    num_inference_steps: numberField("num_inference_steps", "Steps", { min: 1, max: limits.num_inference_steps }),
    guidance_scale: numberField("guidance_scale", "Guidance", { min: 0, step: 0.1 }),
    upscale_steps: numberField("upscale_steps", "Sharpening steps", { min: 0 }),
    noise_level: numberField("noise_level", "Noise before sharpening", { min: 0, max: 999 }),
    feather: numberField("feather", "Soft edge, pixels", { min: 0, placeholder: "0" }),
    rigid: choiceField("rigid", "What the subject does", { "": "automatic", true: "stays as drawn", false: "moves by itself" }, {
      start: "", parse: (text) => (text ? text === "true" : null),
    }),
    fps: numberField("fps", "Frames a second", { min: 1, max: 90 }),
    first: numberField("num_frames", "Only the first frames", { min: 1, placeholder: "all" }),
    background: colourField("background", "Background"),
    fit: choiceField("fit", "Other proportions", { crop: "cut", pad: "fill", stretch: "stretch" }, { start: "crop" }),
    count: countField(MOST_CLIPS),
    seed: seedField(now.seed),
  };
}

/** Whether each field is shown, by its name. */
export function shownFields(task, model) {
  const own = new Set(task.fields);
  const base = task.id !== "upscale";
  return {
    source: Boolean(task.source), last: Boolean(task.last) && offers(model, "last_frame"), region: Boolean(task.region),
    references: base && offers(model, "references") && !model.emulated.includes(serverTask(task)),
    prompt: task.prompt !== "none" && offers(model, "prompt"),
    size: base && offers(model, "resizable") && !own.has("to"),
    transparent: offers(model, "transparent"), path: own.has("path") && offers(model, "path"),
    styles: base && model.styles?.length > 0, negative_prompt: base && offers(model, "negative_prompt"), upscale_steps: base && offers(model, "sharpen"),
    feather: Boolean(task.region) || own.has("to") || task.id === "animate",
    fit: Boolean(task.source) && !own.has("to") && base, planner: base && offers(model, "planner"),
    rigid: own.has("rigid") && offers(model, "rigid"),
    fps: base && task.id !== "interpolate", first: base && task.source === "clip" && task.id !== "extend",
    background: offers(model, "transparent"),
    sticker: true, num_inference_steps: true, guidance_scale: true, count: true, seed: true,
    ...Object.fromEntries(["to", "strength", "factor", "length", "noise_level"].map((name) => [name, own.has(name)])),
    loop: own.has("loop") && offers(model, "loop"),
  };
}

/** Put the fields into the form; returns its other parts. `choose` is called with a task, `chooseModel` with an id. */
export function lay(root, fields, models, { choose, chooseModel }) {
  const at = (...names) => names.map((name) => fields[name].element);
  const tasks = h("div.tasks", { role: "radiogroup", "aria-label": "What to make" }, TASKS.map((task) => h("label.task", {},
    h("input", { type: "radio", name: "task", value: task.id, onchange: () => choose(task) }),
    icon(task.icon), h("span", {}, task.name))));
  const hint = h("p.hint");
  const examples = h("div.examples", { role: "group", "aria-label": "Examples" });
  const switches = h("div.switches", {}, at("loop", "transparent"));
  const model = h("select", { id: "model", onchange: () => chooseModel(model.value) },
    models.map(({ id }) => h("option", { value: id }, id)));
  const licence = h("p.soft");
  const choice = h("div.field", {}, h("label.label", { htmlFor: "model", hidden: models.length < 2 }, "Model"), model, licence);
  model.hidden = models.length < 2;
  const fine = h("div.fine", {}, at("negative_prompt"),
    h("div.pair", {}, at("num_inference_steps", "guidance_scale", "upscale_steps", "noise_level", "feather", "fps", "first", "background")),
    at("size", "fit", "rigid", "planner"));
  const more = h("details.more", {}, h("summary", {}, icon("sliders"), "More settings"), fine);
  const error = h("p.error", { role: "alert", hidden: true });
  const make = h("button.first", { type: "submit" }, "Make");
  const scrolled = h("div.fields", {}, choice, hint, at("source", "last", "region", "to", "prompt"), examples, at("references"),
    at("strength", "factor", "sticker", "length"), switches, at("styles", "path"), more);
  root.append(tasks, scrolled, h("div.make", {}, error, h("div.pair", {}, at("count", "seed")), make));
  return { root, scrolled, tasks, hint, examples, switches, choice, model, licence, fine, more, error, make };
}

/** Show what the chosen task of the chosen model has. */
export function draw(parts, fields, { task, model, useExample }) {
  const shown = shownFields(task, model);
  for (const [name, field] of Object.entries(fields)) field.element.hidden = !shown[name];
  parts.switches.hidden = !shown.loop && !shown.transparent;
  parts.model.value = model.id;
  parts.model.title = model.id;
  parts.licence.textContent = terms(model);
  parts.licence.hidden = !parts.licence.textContent;
  parts.choice.hidden = parts.model.hidden && parts.licence.hidden;
  for (const label of parts.tasks.children) {
    const own = TASKS.find(({ id }) => id === label.firstChild.value);
    label.hidden = !model.tasks.includes(serverTask(own));
    label.firstChild.checked = own === task;
  }
  const emulated = model.emulated.includes(serverTask(task));
  parts.hint.replaceChildren(task.hint, ...(emulated ? [" ", h("span.emulated", { title: EMULATED, tabIndex: 0 }, "Emulated")] : []));
  fields.size.offer(model);
  fields.fps.control.placeholder = model.fps;
  fields.source.say();
  fields.last.say();
  if (task.region) fields.region.say(task.region);
  fields.styles.draw();
  fields.prompt.element.querySelector(".label").textContent = task.prompt === "needed" ? "Prompt" : "Prompt, if you like";
  fields.sticker.offer({ targets: model.stickers, shapes: offers(model, "transparent"), needed: task.id === "sticker" });
  for (const name of ["num_inference_steps", "guidance_scale", "upscale_steps"]) {
    fields[name].control.placeholder = (task.id !== "upscale" && model[name]) ?? "automatic";
  }
  // Stickers are what that task is for; for others one more setting.
  (task.id === "sticker" ? fields.factor.element : fields.fit.element).after(fields.sticker.element);
  parts.examples.replaceChildren(...task.examples.filter((example) => !isForeign(model, example, task)).map((example) => h(
    "button.chip", { type: "button", onclick: () => useExample(example) }, example.name ?? example.request.prompt)));
}

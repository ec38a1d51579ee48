/** The form: what to make, of what, and how. It speaks requests, in the server's plain JSON. */

import * as api from "./api.js";
import { frameField, pathField, regionField } from "./canvas.js";
import { announce, h } from "./dom.js";
import {
  choiceField, complain, countField, numberField, promptField, rangeField, seedField, stickerField, stylesField,
  switchField,
} from "./fields.js";
import { icon } from "./icons.js";
import { formOf } from "./request.js";
import { sourceField, sourceOfFile } from "./source.js";
import { STICKERS, TASKS, serverTask, taskOf, taskOfRequest } from "./tasks.js";
import { isForeign, offers } from "./abilities.js";

const FPS = 16;
const DRAFT = "lumiere-draft";  // of this tab: what was written outlives a reload
const MOST_CLIPS = 8;

/** Events: "made" (detail: the videos that are under way). */
export class Composer extends EventTarget {
  #models;
  #model;
  #task = TASKS[0];
  #parts = {};
  #fields = {};
  #lastSeed = "";

  constructor(root, models, limits = {}) {
    super();
    this.#models = models;
    this.#model = models.find((model) => model.default) ?? models[0];
    this.#makeFields(limits);
    this.#lay(root);
    this.fill(this.#draft() ?? {});
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
    });
    for (const type of ["input", "change", "click"]) root.addEventListener(type, () => this.#keepDraft());
  }

  #makeFields(limits) {
    const seconds = (frames) => `${(frames / FPS).toFixed(1)} s`;
    const longest = Math.min(limits.num_frames ?? 160, 320);
    const f = this.#fields;
    f.prompt = promptField("prompt", "Prompt", { rows: 3, placeholder: "a tiger walking to the left" });
    f.source = sourceField("input_reference", () => (this.#task.source === "clip" ? "Clip" : "Picture"), {
      hint: () => `Choose or drop a ${this.#task.source === "clip" ? "clip" : "picture"}`,
      changed: () => this.#openSource(),
    });
    f.last = sourceField("last_frame", () => "Last frame, if you like", { hint: () => "A picture to end with" });
    f.region = regionField();
    f.to = frameField();
    f.path = pathField();
    f.strength = rangeField("strength", "How much changes", {
      min: 0, max: 1, step: 0.05, start: () => 0.7, say: (value) => `${Math.round(value * 100)} %`,
    });
    f.factor = choiceField("factor", "Frames", { 2: "2 ×", 3: "3 ×", 4: "4 ×" }, { start: "2", parse: Number });
    f.length = rangeField("num_frames", "Length", {
      min: 8, max: longest, step: 8, start: () => this.#task.frames ?? 80, say: seconds, params: ["num_frames", "seconds"],
    });
    f.loop = switchField("loop", "Loop");
    f.transparent = switchField("transparent", "Transparent");
    f.styles = stylesField(() => this.#model.styles ?? []);
    f.sticker = stickerField(STICKERS);
    f.negative_prompt = promptField("negative_prompt", "Not this", { placeholder: "what to keep away from" });
    f.num_inference_steps = numberField("num_inference_steps", "Steps", { min: 1, max: limits.num_inference_steps });
    f.guidance_scale = numberField("guidance_scale", "Guidance", { min: 0, step: 0.1 });
    f.noise_level = numberField("noise_level", "Noise before sharpening", { min: 0, max: 999 });
    f.upscale_steps = numberField("upscale_steps", "Sharpening steps", { min: 0 });
    f.feather = numberField("feather", "Soft edge, pixels", { min: 0, placeholder: "0" });
    f.fit = choiceField("fit", "Other proportions", { crop: "cut", pad: "fill", stretch: "stretch" }, { start: "crop" });
    f.seed = seedField(() => this.#lastSeed || Math.floor(Math.random() * 2 ** 31));
    this.#parts.count = countField(MOST_CLIPS);
  }

  #lay(root) {
    const f = this.#fields;
    const p = this.#parts;
    p.tasks = h("div.tasks", { role: "radiogroup", "aria-label": "What to make" }, TASKS.map((task) => h("label.task", {},
      h("input", { type: "radio", name: "task", value: task.id, onchange: () => this.#choose(task) }),
      icon(task.icon), h("span", {}, task.name))));
    p.hint = h("p.hint");
    p.examples = h("div.examples", { role: "group", "aria-label": "Examples" });
    p.switches = h("div.switches", {}, f.loop.element, f.transparent.element);
    p.model = h("select", { "aria-label": "Model", onchange: () => this.#chooseModel(p.model.value) },
      this.#models.map((model) => h("option", { value: model.id }, model.id)));
    p.fine = h("div.fine", {}, f.negative_prompt.element, h("div.pair", {}, f.num_inference_steps.element,
      f.guidance_scale.element, f.upscale_steps.element, f.noise_level.element, f.feather.element), f.fit.element,
    h("div.field", { hidden: this.#models.length < 2 }, h("span.label", {}, "Model"), p.model));
    p.more = h("details.more", {}, h("summary", {}, icon("sliders"), "More settings"), p.fine);
    p.error = h("p.error", { role: "alert", hidden: true });
    p.make = h("button.first", { type: "submit" }, "Make");
    root.append(p.tasks, h("div.fields", {}, p.hint, f.source.element, f.last.element, f.prompt.element, p.examples,
      f.region.element, f.to.element, f.strength.element, f.factor.element, f.sticker.element, f.length.element,
      p.switches, f.styles.element, f.path.element, p.more),
    h("div.make", {}, p.error, h("div.pair", {}, p.count.element, f.seed.element), p.make));
  }

  /** Fields by what the task needs and the model can do. */
  #shown() {
    const task = this.#task;
    const model = this.#model;
    const own = new Set(task.fields);
    const upscale = task.id === "upscale";
    return {
      source: Boolean(task.source), last: Boolean(task.last), prompt: task.prompt !== "none", region: Boolean(task.region),
      to: own.has("to"), path: own.has("path") && offers(model, "path"), strength: own.has("strength"),
      factor: own.has("factor"), length: own.has("length"), loop: own.has("loop"), transparent: offers(model, "transparent"),
      styles: !upscale && Boolean(model.styles?.length), sticker: true, negative_prompt: !upscale,
      num_inference_steps: true, guidance_scale: true, upscale_steps: !upscale && offers(model, "sharpen"),
      noise_level: own.has("noise_level"), feather: Boolean(task.region || own.has("to") || task.id === "animate"),
      fit: Boolean(task.source) && !["outpaint", "upscale"].includes(task.id), seed: true,
    };
  }

  #draw() {
    const shown = this.#shown();
    for (const [name, field] of Object.entries(this.#fields)) field.element.hidden = !shown[name];
    this.#parts.switches.hidden = !shown.loop && !shown.transparent;
    for (const label of this.#parts.tasks.children) {
      const task = taskOf(label.firstChild.value);
      label.hidden = !this.#model.tasks.includes(serverTask(task));
      label.firstChild.checked = task === this.#task;
    }
    this.#parts.hint.textContent = this.#task.hint;
    this.#fields.source.say();
    this.#fields.last.say();
    if (this.#task.region) this.#fields.region.say(this.#task.region);
    this.#fields.styles.draw();
    this.#fields.prompt.element.querySelector(".label").textContent =
      this.#task.prompt === "needed" ? "Prompt" : "Prompt, if you like";
    // Stickers are what that task is for; for others one more setting.
    const place = this.#task.id === "sticker" ? this.#fields.factor.element : this.#parts.fine.firstChild;
    place.after(this.#fields.sticker.element);
    this.#parts.examples.replaceChildren(...this.#task.examples.filter((each) => !isForeign(this.#model, each))
      .map((example) => h("button.chip", { type: "button", onclick: () => this.#useExample(example) },
        example.name ?? (example.request.prompt || "a clip of a cat"))));
    this.#openSource();
  }

  #choose(task, request) {
    this.#task = task;
    if (!request) this.#put({ ...this.#read(), num_frames: undefined, sticker: undefined, ...task.preset });
    this.#complainNot();
    this.#draw();
  }

  #chooseModel(id) {
    this.#model = this.#models.find((model) => model.id === id) ?? this.#model;
    this.#parts.model.value = this.#model.id;
    if (!this.#model.tasks.includes(serverTask(this.#task))) this.#task = TASKS[0];
    this.#draw();
  }

  async #useExample(example) {
    const files = {};
    for (const [name, file] of Object.entries(example.files ?? {})) {
      const { blob } = await api.download(`/page/${file}`);
      files[name] = sourceOfFile(new File([blob], file, { type: blob.type }));
    }
    this.fill({ ...this.#task.preset, ...example.request, task: serverTask(this.#task) }, files, this.#task);
    this.#fields.prompt.control.focus({ preventScroll: true });
  }

  /** Show a request's settings. `files`: `{source, last}` as fields of sources take them, and `mask`, a Blob. */
  fill(request, files = {}, task = taskOfRequest(request)) {
    this.#choose(task, request);
    this.#put(request);
    this.#fields.last.set(files.last ?? null);
    this.#region = files.mask ?? request.box ?? null;
    this.#fields.source.set(files.source ?? null);
    this.#keepDraft();
  }

  /** Go on from a source with another task, or the one at hand; what is written stays. */
  start(source, task = this.#task) {
    if (task !== this.#task) this.#choose(task);
    this.#region = null;
    this.#fields.source.set(source);
  }

  get task() { return this.#task; }

  chooseModel(id) { if (id) this.#chooseModel(id); }

  #region = null;  // of the settings at hand
  #opened = null;

  async #openSource() {
    const source = this.#fields.source.get();
    for (const field of [this.#fields.region, this.#fields.to]) {
      if (field.element.hidden) continue;
      field.element.hidden = source === null;
      if (source === null || (this.#opened === source && field === this.#openedIn && !this.#region)) continue;
      [this.#opened, this.#openedIn] = [source, field];
      const region = this.#region;
      this.#region = null;
      try {
        await field.open(source.value instanceof Blob ? source.value : source.url, region);
      } catch (error) {
        complain(this.#fields.source, `This file can't be shown: ${error.message}`);
      }
    }
  }

  #openedIn = null;

  #put(request) {
    for (const field of Object.values(this.#fields)) field.fill?.(request);
  }

  #read() {
    const shown = this.#shown();
    const fields = Object.entries(this.#fields).filter(([name, field]) => shown[name] && field.read);
    return Object.assign({ task: serverTask(this.#task) }, ...fields.map(([, field]) => field.read()));
  }

  #draft() {
    try {
      return JSON.parse(sessionStorage.getItem(DRAFT));
    } catch {
      return null;
    }
  }

  #keepDraft() {
    sessionStorage.setItem(DRAFT, JSON.stringify(this.#read()));
  }

  async submit() {
    if (this.#parts.make.disabled) return;
    this.#complainNot();
    if (this.#lacks()) return;
    this.#busy(true);
    try {
      const request = this.#read();
      const files = await this.#files();
      const made = [];
      for (let number = 0; number < this.#parts.count.read(); number++) {
        const seed = request.seed === undefined ? undefined : String(BigInt(request.seed) + BigInt(number));
        made.push(await api.create(formOf({ ...request, seed }, files, { model: this.#model.id })));
        this.#lastSeed = made.at(-1).seed ?? this.#lastSeed;
        this.dispatchEvent(new CustomEvent("made", { detail: made.at(-1) }));
      }
      announce(made.length > 1 ? `${made.length} clips are under way` : "Your clip is under way");
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#busy(false);
    }
  }

  async #files() {
    const shown = this.#shown();
    return {
      input_reference: shown.source ? this.#fields.source.get()?.value : undefined,
      last_frame: shown.last ? this.#fields.last.get()?.value : undefined,
      mask: shown.region ? await this.#fields.region.file() : undefined,
    };
  }

  /** What the server would refuse anyway is said at once. */
  #lacks() {
    const { prompt, source, region } = this.#fields;
    const seed = this.#fields.seed.control.value.trim();
    if (this.#task.source && !source.get()) return this.#point(source, `Choose a ${this.#task.source} first.`);
    if (this.#task.prompt === "needed" && !prompt.control.value.trim()) return this.#point(prompt, "Say what to show.");
    if (this.#task.region && region.control.empty) return this.#point(region, `Paint what should ${this.#task.region}.`);
    if (seed && !/^\d{1,19}$/.test(seed)) return this.#point(this.#fields.seed, "A whole number, please.");
    return false;
  }

  #point(field, message) {
    complain(field, message);
    if (this.#parts.fine.contains(field.element)) this.#parts.more.open = true;
    field.element.scrollIntoView({ block: "nearest" });
    field.element.querySelector("input, textarea, select, button, mask-editor")?.focus();
    return true;
  }

  #complain(error) {
    const every = [...Object.values(this.#fields), ...(this.#fields.sticker.parts)];
    const shown = every.filter((field) => field.element.checkVisibility?.({ visibilityProperty: true }) ?? true);
    const field = error.param && (shown.find((each) => each.params.includes(error.param))
      ?? every.find((each) => each.params.includes(error.param) && this.#parts.fine.contains(each.element)));
    const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    if (field) return this.#point(field, error.message);
    this.#parts.error.textContent = error.message + wait;
    this.#parts.error.hidden = false;
    return true;
  }

  #complainNot() {
    this.#parts.error.hidden = true;
    for (const field of [...Object.values(this.#fields), ...this.#fields.sticker.parts]) complain(field, "");
  }

  #busy(busy) {
    this.#parts.make.disabled = busy;
    this.#parts.make.textContent = busy ? "Sending" : "Make";
  }
}

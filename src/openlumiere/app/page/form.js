/** The form: what to make, of what, and how. It speaks requests, in the server's plain JSON. */

import { offers } from "./abilities.js";
import * as api from "./api.js";
import { announce } from "./dom.js";
import { complain } from "./fields.js";
import { formOf } from "./request.js";
import { draw, lay, makeFields, shownFields } from "./settings.js";
import { sourceOfFile } from "./source.js";
import { TASKS, serverTask, taskOfRequest } from "./tasks.js";

const DRAFT = "lumiere-draft";  // of this tab: what was written outlives a reload

/** Events: "made" (detail: `{video, number}`, of each that is now under way). */
export class Composer extends EventTarget {
  #models;
  #model;
  #task = TASKS[0];
  #fields;
  #parts;
  #lastSeed = null;
  #region = null;  // a mask or box of settings, for the source that comes with them
  #opened = {};  // which source is open in which field

  constructor(root, models, limits = {}) {
    super();
    this.#models = models;
    this.#model = models.find((model) => model.default) ?? models[0];
    this.#fields = makeFields({
      task: () => this.#task, model: () => this.#model, opened: () => this.#openSource(),
      seed: () => this.#lastSeed ?? Math.floor(Math.random() * 2 ** 31),
    }, limits);
    this.#parts = lay(root, this.#fields, models, {
      choose: (task) => this.#choose(task), chooseModel: (id) => this.chooseModel(id),
    });
    this.fill(readDraft() ?? {});
    root.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    root.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
    });
    for (const type of ["input", "change", "click"]) root.addEventListener(type, () => this.#keepDraft());
  }

  get task() { return this.#task; }

  /** Change to another model, where there is such a one. */
  chooseModel(id) {
    const found = this.#models.find((model) => model.id === id) ?? this.#model;
    if (found === this.#model) return;
    const kept = { ...this.#read(), num_frames: undefined, size: undefined };
    this.#model = found;
    this.#task = this.#able(this.#task);
    for (const field of Object.values(this.#fields)) field.fill?.(kept);
    this.#draw();
  }

  /** A task, or, where the model cannot do it, the first that it can. */
  #able(task) {
    const can = (one) => this.#model.tasks.includes(serverTask(one));
    return can(task) ? task : TASKS.find(can);
  }

  /** Show a request's settings. `files`: `{source, last, references}` as the fields take them, and `mask`, a Blob. */
  fill(request, files = {}, task = taskOfRequest(request)) {
    this.#task = this.#able(task);
    this.#complainNot();
    for (const field of Object.values(this.#fields)) field.fill?.(request);
    this.#fields.last.set(files.last ?? null);
    this.#fields.references.set(files.references ?? []);
    this.#region = files.mask ?? request.box ?? null;
    this.#fields.source.set(files.source ?? null);
    this.#draw();
    this.#keepDraft();
  }

  /** Go on from a source, with another task or the one at hand; what is written stays. */
  start(source, task = this.#task) {
    if (task !== this.#task) this.#choose(task);
    this.#fields.source.set(source);
  }

  /** Change the task; what is written stays, but for what only the task before had. */
  #choose(task) {
    this.#parts.scrolled.scrollTop = 0;
    const kept = { ...this.#read(), loop: undefined, num_frames: undefined, sticker: undefined, ...task.preset };
    this.#task = task;
    this.#complainNot();
    for (const field of Object.values(this.#fields)) field.fill?.(kept);
    if (task.source === "clip" && this.#fields.source.get()?.still) this.#fields.source.set(null);
    this.#draw();
  }

  #draw() {
    draw(this.#parts, this.#fields, {
      task: this.#task, model: this.#model, useExample: (example) => this.#useExample(example),
    });
    this.#openSource();
  }

  async #useExample({ request, files = {} }) {
    const task = this.#task;
    const sources = await Promise.all(Object.entries(files).map(async ([name, file]) => {
      const { blob } = await api.download(`/page/${file}`);
      return [name, sourceOfFile(new File([blob], file, { type: blob.type }))];
    }));
    this.fill({ ...task.preset, ...request, task: serverTask(task) }, Object.fromEntries(sources), task);
  }

  /** Show the source where something is to be drawn on it. */
  async #openSource() {
    const source = this.#fields.source.get();
    const shown = shownFields(this.#task, this.#model);
    this.#parts.root.classList.toggle("drawing", Boolean(source) && (shown.region || shown.to));
    for (const name of ["region", "to"]) {
      const field = this.#fields[name];
      field.element.hidden = !shown[name] || !source;
      if (field.element.hidden || (this.#opened[name] === source && !this.#region)) continue;
      const region = this.#region;
      [this.#opened[name], this.#region] = [source, null];
      await field.open(source.value instanceof Blob ? source.value : source.url, region).catch(() => {});  // it says so itself
    }
  }

  #read() {
    const shown = shownFields(this.#task, this.#model);
    const fields = Object.entries(this.#fields).filter(([name, field]) => shown[name] && field.read && name !== "count");
    return Object.assign({ task: serverTask(this.#task) }, ...fields.map(([, field]) => field.read()));
  }

  #keepDraft() {
    sessionStorage.setItem(DRAFT, JSON.stringify(this.#read()));
  }

  /** Ask for as many clips as are wanted. */
  async submit() {
    if (this.#parts.make.disabled) return;
    this.#complainNot();
    if (this.#isIncomplete()) return;
    this.#busy(true);
    try {
      const request = this.#read();
      const files = await this.#files();
      const count = this.#fields.count.read();
      for (let number = 0; number < count; number++) {
        const seed = request.seed === undefined ? undefined : String(BigInt(request.seed) + BigInt(number));
        const video = await api.create(formOf({ ...request, seed }, files, { model: this.#model.id }));
        this.#lastSeed = video.seed ?? this.#lastSeed;
        this.dispatchEvent(new CustomEvent("made", { detail: { video, number } }));
      }
      announce(count > 1 ? `${count} clips are under way` : "Your clip is under way");
    } catch (error) {
      this.#complain(error);
    } finally {
      this.#busy(false);
    }
  }

  async #files() {
    const shown = shownFields(this.#task, this.#model);
    return {
      input_reference: shown.source ? this.#fields.source.get()?.value : undefined,
      last_frame: shown.last ? this.#fields.last.get()?.value : undefined,
      reference: shown.references ? this.#fields.references.get().map(({ value }) => value) : undefined,
      mask: shown.region ? await this.#fields.region.file() : undefined,
    };
  }

  /** Say at once what the server would refuse anyway. */
  #isIncomplete() {
    const { prompt, source, last, region, to, seed } = this.#fields;
    const shown = shownFields(this.#task, this.#model);
    if (this.#task.source && !source.get()) return this.#point(source, `Choose a ${this.#task.source} first.`);
    if (shown.last && offers(this.#model, "last_frame_needed") && !last.get()) return this.#point(last, "Choose a picture to end with.");
    if (this.#task.region && region.control.empty) return this.#point(region, `Paint what should ${this.#task.region}.`);
    if (this.#task.id === "outpaint" && to.control.unchanged) return this.#point(to, "Choose a frame that is larger than the clip.");
    if (shown.prompt && this.#task.prompt === "needed" && !prompt.control.value.trim()) return this.#point(prompt, "Say what to show.");
    if (!/^\d{0,19}$/.test(seed.control.value.trim())) return this.#point(seed, "A whole number, please.");
    return false;
  }

  /** Say what is wrong beside the field that it is about, else above the button. */
  #complain(error) {
    const field = this.#named(error);
    if (field) return this.#point(field, error.message);
    const wait = error.retryAfter ? ` Try again in ${error.retryAfter} s.` : "";
    this.#parts.error.textContent = error.message + wait;
    this.#parts.error.hidden = false;
    return true;
  }

  /** The shown field that an error is about: by its `param`, else by the word that it begins with. */
  #named({ param, message }) {
    const name = param ?? /^\w+/.exec(message)?.[0];
    const shown = shownFields(this.#task, this.#model);
    const fields = Object.entries(this.#fields).filter(([name]) => shown[name]).map(([, field]) => field);
    return [...fields, ...this.#fields.sticker.parts].find(({ params }) => params.includes(name));
  }

  #point(field, message) {
    complain(field, message);
    if (this.#parts.fine.contains(field.element)) this.#parts.more.open = true;
    field.element.scrollIntoView({ block: "nearest" });
    field.element.querySelector("input, textarea, select, button")?.focus({ preventScroll: true });
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

function readDraft() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFT));
  } catch {
    return null;
  }
}

/**
 * The form's fields. Each is `{params, element, read(), fill(request)}`: `read` gives its part of a request, in the
 * server's plain JSON; `fill` shows a request's, or its default where the request has none; `params` are the names by
 * which the server's errors call it.
 */

import { h } from "./dom.js";
import { icon } from "./icons.js";

let count = 0;
const fresh = (name) => `${name}-${++count}`;

/** A labelled place for a control, with a line for what is wrong with it. */
export function labelled(params, label, control, { beside, group = false, around = (inner) => inner } = {}) {
  const id = fresh(params[0]);
  const error = h("p.error", { id: `${id}-error`, hidden: true });
  if (!group) control.id = id;
  const title = h("span.label-row", {}, group ? h("span.label", { id: `${id}-label` }, label)
    : h("label.label", { htmlFor: id }, label), beside);
  if (group) {
    control.setAttribute("role", control.getAttribute("role") ?? "group");
    control.setAttribute("aria-labelledby", `${id}-label`);
  }
  return { params, control, element: h("div.field", {}, title, around(control), error) };
}

/** Say beside a field what is wrong with it; "" takes it back. */
export function complain(field, message) {
  const error = field.element.querySelector(".error");
  error.textContent = message;
  error.hidden = !message;
  const control = field.element.querySelector("input, textarea, select, button");
  if (!control) return;
  control.toggleAttribute("aria-invalid", Boolean(message));
  if (message) control.setAttribute("aria-describedby", error.id);
  else control.removeAttribute("aria-describedby");
}

export function promptField(name, label, { rows = 1, placeholder = "" } = {}) {
  const control = h("textarea", { rows, placeholder, autocomplete: "off" });
  const field = labelled([name], label, control);
  return {
    ...field,
    read: () => (control.value.trim() ? { [name]: control.value.trim() } : {}),
    fill: (request) => { control.value = request[name] ?? ""; },
  };
}

/** A number on a slider that says its value in words; `start()` and `range()`, `{min, max, step}`, may change. */
export function rangeField(name, label, { range, start, say = String, params = [name] }) {
  const control = h("input", { type: "range", ...range() });
  const value = h("output.value");
  const field = labelled(params, label, control, { beside: value });
  value.setAttribute("for", control.id);
  let touched = false;
  const told = () => {
    value.textContent = say(Number(control.value));
    control.setAttribute("aria-valuetext", value.textContent);
  };
  control.addEventListener("input", () => { touched = true; told(); });
  return {
    ...field,
    read: () => (touched ? { [name]: Number(control.value) } : {}),
    fill(request) {
      Object.assign(control, range());
      touched = request[name] !== undefined && request[name] !== null;
      const value = touched ? request[name] : start();
      if (value > Number(control.max)) control.max = value;
      control.value = value;
      told();
    },
  };
}

/** A number that may be left to the model. */
export function numberField(name, label, { min, max, step = 1, placeholder = "automatic" }) {
  const control = h("input", { type: "number", min, max, step, placeholder, inputMode: "decimal" });
  return {
    ...labelled([name], label, control),
    read: () => (control.value === "" ? {} : { [name]: Number(control.value) }),
    fill: (request) => { control.value = request[name] ?? ""; },
  };
}

/** Width and height; what is left empty is the model's. */
export function sizeField() {
  const side = (label) => h("input", { type: "number", min: 1, inputMode: "numeric", "aria-label": label });
  const [width, height] = [side("Width"), side("Height")];
  const field = labelled(["size", "width", "height"], "Size, pixels", h("span.size", {}, width, "×", height), { group: true });
  return {
    ...field,
    offer({ width: usual, height: usualHeight, size_multiple: step }) {
      Object.assign(width, { step, min: step, placeholder: usual ?? "automatic" });
      Object.assign(height, { step, min: step, placeholder: usualHeight ?? "automatic" });
    },
    read() {
      const sides = [width, height].map((input) => Number(input.value || input.placeholder) || 0);
      return (width.value || height.value) && sides.every(Boolean) ? { size: sides } : {};
    },
    fill({ size }) { [width.value, height.value] = size ?? ["", ""]; },
  };
}

export function switchField(name, label, { start = false } = {}) {
  const control = h("input", { type: "checkbox", role: "switch", id: fresh(name) });
  const error = h("p.error", { id: `${control.id}-error`, hidden: true });
  const element = h("div.field.switch", {}, h("label", {}, control, h("span.track"), h("span", {}, label)), error);
  return {
    params: [name], element, control,
    read: () => ({ [name]: control.checked }),
    fill: (request) => { control.checked = request[name] ?? start; },
  };
}

/** One of a few, as a row of buttons; choices: `{value: words}`. */
export function choiceField(name, label, choices, { start, parse = (text) => text }) {
  const radio = fresh(name);
  const inputs = Object.keys(choices).map((value) => h("input", { type: "radio", name: radio, value }));
  const control = h("div.segments", { role: "radiogroup" },
    inputs.map((input) => h("label", {}, input, h("span", {}, choices[input.value]))));
  return {
    ...labelled([name], label, control, { group: true }),
    read: () => ({ [name]: parse(inputs.find((input) => input.checked)?.value ?? start) }),
    fill: (request) => {
      const value = String(request[name] ?? start);
      for (const input of inputs) input.checked = input.value === value;
    },
  };
}

/** A colour; other than `#rrggbb`, as names of colours, it is kept unless another one is chosen. */
export function colourField(name, label) {
  const WHITE = "#ffffff";
  const control = h("input", { type: "color", value: WHITE });
  let named = null;
  control.addEventListener("input", () => { named = null; });
  return {
    ...labelled([name], label, control),
    read: () => (named ? { [name]: named } : control.value === WHITE ? {} : { [name]: control.value }),
    fill(request) {
      const colour = request[name] ?? WHITE;
      named = colour.startsWith("#") ? null : colour;
      control.value = named ? WHITE : colour;
    },
  };
}

/** Styles with their strengths: several are mixed. */
export function stylesField(names) {
  const list = h("div.chips");
  const strengths = h("div.strengths");
  const field = labelled(["style", "styles"], "Style", h("div", {}, list, strengths), { group: true });
  let chosen = new Map();
  const draw = () => {
    list.replaceChildren(...names().map((name) => h("button.chip", {
      type: "button", "aria-pressed": chosen.has(name),
      onclick() {
        if (!chosen.delete(name)) chosen.set(name, chosen.size ? 0.5 : 1);
        draw();
        [...list.children].find((chip) => chip.textContent === name)?.focus();
      },
    }, name)));
    strengths.replaceChildren(...[...chosen].map(([name, strength]) => slider(name, strength)));
  };
  const slider = (name, strength) => {
    const value = h("output.value", {}, percent(strength));
    const input = h("input", {
      type: "range", min: 0, max: 1, step: 0.05, value: strength, "aria-label": `Strength of ${name}`,
      oninput() {
        chosen.set(name, Number(input.value));
        value.textContent = percent(input.value);
      },
    });
    return h("label.strength", {}, h("span", {}, name), input, value);
  };
  const percent = (strength) => `${Math.round(strength * 100)} %`;
  return {
    ...field,
    draw,
    read: () => (chosen.size ? { styles: [...chosen].filter(([name]) => names().includes(name)) } : {}),
    fill(request) {
      chosen = new Map(request.styles ?? []);
      draw();
    },
  };
}

/** Empty = another seed each time; the lock keeps one. */
export function seedField(last) {
  const input = h("input", { type: "text", inputMode: "numeric", placeholder: "new each time", autocomplete: "off" });
  const lock = h("button.round", { type: "button", onclick: () => set(input.value ? "" : last()) });
  const field = labelled(["seed"], "Seed", input, { around: (inner) => h("span.with-button", {}, inner, lock) });
  const set = (seed) => {
    input.value = seed;
    drawLock();
  };
  const drawLock = () => {
    const locked = input.value.trim() !== "";
    lock.setAttribute("aria-pressed", String(locked));
    lock.setAttribute("aria-label", locked ? "Take a new seed each time" : "Keep the last seed");
    lock.title = lock.getAttribute("aria-label");
    lock.replaceChildren(icon(locked ? "lock" : "dice"));
  };
  input.addEventListener("input", drawLock);
  drawLock();
  return {
    ...field,
    read: () => (input.value.trim() === "" ? {} : { seed: input.value.trim() }),
    fill: (request) => set(request.seed ?? ""),
  };
}

/** How many clips to make at once, with a button to either side. */
export function countField(most) {
  const input = h("input", { type: "number", min: 1, max: most, step: 1, value: 1, inputMode: "numeric" });
  const step = (by) => { input.value = Math.min(most, Math.max(1, (Number(input.value) || 1) + by)); };
  const button = (label, by, sign) => h("button.round", { type: "button", "aria-label": label, onclick: () => step(by) }, sign);
  const around = (inner) => h("span.with-button", {}, button("Fewer clips", -1, "−"), inner, button("More clips", 1, "+"));
  return {
    ...labelled(["count"], "Clips", input, { around }),
    read: () => Math.min(most, Math.max(1, Math.round(Number(input.value)) || 1)),
    set: (number) => { input.value = number; },
  };
}

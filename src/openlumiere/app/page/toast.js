/** Short messages at the foot of the page, with one thing that can be done about them. */

import { $, h } from "./dom.js";
import { icon } from "./icons.js";

const SECONDS = 8;

/** `action`: `{name, run}`. A second message takes the place of the first. */
export function toast(text, { action, seconds = SECONDS, alarm = false } = {}) {
  const close = () => box.remove();
  const box = h(alarm ? "div.toast.alarm" : "div.toast", { role: alarm ? "alert" : "status" }, h("span", {}, text),
    action && h("button", { type: "button", onclick: () => { close(); action.run(); } }, action.name),
    h("button.round", { type: "button", "aria-label": "Close", onclick: close }, icon("close")));
  $("toasts").replaceChildren(box);
  let timer = setTimeout(close, seconds * 1000);
  box.addEventListener("pointerenter", () => clearTimeout(timer));
  box.addEventListener("focusin", () => clearTimeout(timer));
  box.addEventListener("pointerleave", () => { timer = setTimeout(close, seconds * 1000); });
}

/** Say what went wrong with something that was clicked. */
export const failed = (error) => toast(error.message, { alarm: true });

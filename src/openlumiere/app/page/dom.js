/** Small helpers to make and find elements. */

/**
 * Make an element: `h("button.first", {type: "button", onclick: make}, "Make")`.
 * Properties are set as such where the element has them, as attributes otherwise; null and undefined are left out.
 */
export function h(selector, properties = {}, ...children) {
  const [tag, ...classes] = selector.split(".");
  const element = document.createElement(tag || "div");
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (typeof value === "boolean" && key.includes("-")) element.setAttribute(key, String(value));
    else if (key in element && key !== "list") element[key] = value;
    else element.setAttribute(key, value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const $ = (id) => document.getElementById(id);

/** Say something to those who listen to the page rather than see it. */
export function announce(text) {
  $("announcer").textContent = text;
}

export const stillPreferred = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

/** Bring something into sight, without a ride where motion is unwelcome. */
export function show(element) {
  element.scrollIntoView({ behavior: stillPreferred() ? "auto" : "smooth", block: "start" });
}

/** Call `work` once, after `wait` milliseconds without another call. */
export function calmly(work, wait = 250) {
  let timer;
  return (...rest) => {
    clearTimeout(timer);
    timer = setTimeout(() => work(...rest), wait);
  };
}

/** Let the browser save a blob as a file. */
export function save(blob, name) {
  const link = h("a", { href: URL.createObjectURL(blob), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export async function copy(text) {
  if (navigator.clipboard && isSecureContext) return navigator.clipboard.writeText(text);
  const field = h("textarea", { value: text, readOnly: true });  // plain http, as inside a home network
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

// What the editors and the player share: making elements, their look, and their icons. The page's custom properties
// (--paper, --ink, …) are used where it has them.

export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

const SVG = "http://www.w3.org/2000/svg";

/** Make an element: functions become listeners, booleans are set or left out, all else is an attribute. */
export function h(tag, attributes = {}, ...children) {
  const element = tag === "svg" || tag === "path" ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (typeof value === "boolean") element.toggleAttribute(name, value);
    else element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const ICONS = {
  brush: "M19 3c-5 2-9 6-11 10l3 3c4-2 8-6 10-11ZM8 14c-3 0-4 2-4 4 0 1-1 2-2 2 5 2 9 0 9-4",
  eraser: "M8 20h12M5 13 13 5a2 2 0 0 1 3 0l4 4a2 2 0 0 1 0 3l-8 8H8l-3-3a2 2 0 0 1 0-4ZM9 9l7 7",
  box: "M4 8V4h4M16 4h4v4M20 16v4h-4M8 20H4v-4M4 11v2M20 11v2M11 4h2M11 20h2",
  undo: "M8 5 4 9l4 4M4 9h10a6 6 0 0 1 0 12h-4",
  redo: "M16 5l4 4-4 4M20 9H10a6 6 0 0 0 0 12h4",
  invert: "M12 3a9 9 0 0 0 0 18ZM12 3a9 9 0 0 1 0 18M12 6l8 0M12 12h9M12 18h8",
  clear: "M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5",
  upload: "M12 16V4M7 9l5-5 5 5M4 16v4h16v-4",
  play: "M7 4v16l13-8Z",
  pause: "M8 4v16M16 4v16",
  previous: "M18 5v14l-9-7ZM6 5v14",
  next: "M6 5v14l9-7ZM18 5v14",
  remove: "M5 12h14",
};

export function icon(name) {
  return h("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, h("path", { d: ICONS[name] }));
}

/** A square button that shows an icon; its name is also its tool tip. */
export function iconButton(name, label, press, attributes = {}) {
  return h("button", { type: "button", class: "icon", "aria-label": label, title: label, click: press, ...attributes }, icon(name));
}

export function sheet(text) {
  const style = new CSSStyleSheet();
  style.replaceSync(text);
  return style;
}

export const base = sheet(`
  :host {
    --_paper: var(--paper, light-dark(#f6f6f4, #131416)); --_card: var(--card, light-dark(#ffffff, #1e2023));
    --_ink: var(--ink, light-dark(#1b1c1e, #eceef0)); --_soft: var(--soft, light-dark(#5d6167, #a2a8af));
    --_line: var(--line, light-dark(#d6d8da, #3a3e43)); --_accent: var(--accent, light-dark(#1f5fd0, #86b1ff));
    --_on-accent: var(--on-accent, light-dark(#ffffff, #0c1a33)); --_chosen: var(--chosen, light-dark(#e4edff, #22314d));
    --_alarm: var(--alarm, light-dark(#a4161a, #ffb3b0)); --_radius: var(--radius, 0.6rem);
    display: block; color: var(--_ink); font: 0.875rem/1.4 system-ui, sans-serif; min-width: 0;
  }
  :host([hidden]), [hidden] { display: none !important; }
  * { box-sizing: border-box; }
  p { margin: 0; }
  button, input, label { font: inherit; color: inherit; }
  button, .button {
    min-height: 2.5rem; padding: 0 0.75rem; border: 1px solid var(--_line); border-radius: var(--_radius);
    background: var(--_card); cursor: pointer; touch-action: manipulation;
  }
  @media (hover: hover) { button:not(:disabled):hover, .button:hover { border-color: var(--_soft); } }
  button:disabled { cursor: default; color: var(--_soft); }
  button:disabled svg { opacity: 0.45; }
  button[aria-pressed="true"], .button:has(input:checked) {
    background: var(--_chosen); border-color: var(--_accent); box-shadow: inset 0 0 0 1px var(--_accent);
  }
  button.icon { width: 2.5rem; padding: 0; display: inline-grid; place-content: center; flex: none; }
  svg { width: 1.25rem; height: 1.25rem; fill: none; stroke: currentcolor; stroke-width: 1.75; stroke-linecap: round; stroke-linejoin: round; display: block; }
  :focus { outline: none; }
  :focus-visible, .button:has(:focus-visible) { outline: 3px solid var(--_accent); outline-offset: 2px; }
  input[type="range"] { accent-color: var(--_accent); min-width: 0; height: 2.5rem; margin: 0; cursor: pointer; }
  input[type="number"] { width: 100%; min-height: 2.5rem; padding: 0 0.4rem; border: 1px solid var(--_line); border-radius: var(--_radius); background: var(--_card); }
  .row { display: flex; flex-wrap: wrap; align-items: center; gap: 0.5rem; }
  .group { display: flex; gap: 0.25rem; }
  .soft { color: var(--_soft); font-variant-numeric: tabular-nums; }
  .alarm { color: var(--_alarm); }
  .alarm:empty { display: none; }
  .unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
  .checker { background: repeating-conic-gradient(#cfd2d6 0% 25%, #f4f5f6 0% 50%) 0 0 / 1rem 1rem; }
`);

/** A custom element's shadow root, with the shared look and its own. */
export function shadow(host, own, ...children) {
  const root = host.attachShadow({ mode: "open" });
  root.adoptedStyleSheets = [base, own];
  root.append(...children);
  return root;
}

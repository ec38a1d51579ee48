// What <clip-player> consists of, and its look.

import { h, iconButton, shadow, sheet } from "./elements.js";

export const GROUNDS = { checker: "Checkerboard", white: "White", black: "Black" };

const look = sheet(`
  :host { display: grid; grid-template-columns: minmax(0, 1fr); gap: 0.4rem; }
  .stage { position: relative; width: min(100%, calc(var(--stage-height, 62vh) * var(--ratio, 1))); aspect-ratio: var(--ratio, 1); margin-inline: auto; border-radius: var(--_radius); overflow: clip; isolation: isolate; }
  .stage.plain { background: var(--ground); }
  .stage canvas { position: absolute; inset: 0; width: 100%; height: 100%; display: block; }
  .source { clip-path: inset(0 calc(100% - var(--split)) 0 0); }
  .source, .under { object-fit: var(--fit, cover); }
  .shown { clip-path: inset(0 0 0 var(--split, 0%)); }
  .handle { position: absolute; top: 0; bottom: 0; left: var(--split); width: 2.75rem; margin-left: -1.375rem; cursor: ew-resize; touch-action: pan-y; }
  .handle::before { content: ""; position: absolute; left: calc(50% - 1px); top: 0; bottom: 0; width: 2px; background: #fff; box-shadow: 0 0 0 1px rgb(0 0 0 / 0.55); }
  .handle::after { content: "‹ ›"; position: absolute; left: 50%; top: 50%; width: 2rem; height: 2rem; margin: -1rem; border-radius: 50%; background: #fff; color: #1b1c1e; font-weight: 700; display: grid; place-content: center; box-shadow: 0 0 0 1px rgb(0 0 0 / 0.55); }
  .handle:focus-visible { outline: none; }
  .handle:focus-visible::after { outline: 3px solid var(--_accent); outline-offset: 2px; }
  .name { position: absolute; bottom: 0.5rem; padding: 0.05rem 0.5rem; border-radius: 1rem; background: rgb(0 0 0 / 0.72); color: #fff; font-size: 0.75rem; pointer-events: none; }
  .name.left { left: 0.5rem; } .name.right { right: 0.5rem; }
  .wait { position: absolute; inset: 0; display: grid; place-content: center; text-align: center; padding: 1rem; color: var(--_soft); }
  .controls { container-type: inline-size; }
  .bar { display: flex; flex-wrap: wrap; align-items: center; gap: 0.25rem 0.6rem; }
  .scrub { display: flex; align-items: center; gap: 0.6rem; flex: 1 1 12rem; }
  .scrub input { flex: 1 1 4rem; }
  .number { min-width: 4.5em; text-align: right; white-space: nowrap; }
  @container (max-width: 30rem) { .scrub { order: 1; flex-basis: 100%; } }
  fieldset { display: flex; gap: 0.35rem; align-items: center; margin: 0 0 0 auto; padding: 0; border: 0; min-width: 0; }
  fieldset label { position: relative; width: 2rem; height: 2rem; border-radius: 50%; border: 1px solid var(--_soft); overflow: clip; cursor: pointer; }
  fieldset label.checker { background-size: 0.8rem 0.8rem; }
  fieldset label.white { background: #fff; } fieldset label.black { background: #000; }
  fieldset label.own { background: conic-gradient(#e0425a, #e8a33d, #5bb04c, #3b8edb, #8a55d7, #e0425a); }
  fieldset label.own.set { background: var(--own); }
  fieldset label:has(:checked), fieldset label.own.set { box-shadow: 0 0 0 2px var(--_card), 0 0 0 4px var(--_accent); }
  fieldset label:has(:focus-visible) { outline: 3px solid var(--_accent); outline-offset: 4px; }
  fieldset input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: pointer; }
`);

/** Fill a player's shadow root; return the parts that it works with. */
export function buildParts(player) {
  const canvas = h("canvas", { class: "shown", role: "img", "aria-label": "Clip" });
  const source = h("canvas", { class: "source", "aria-hidden": "true", hidden: true });
  const handle = h("div", {
    class: "handle", role: "slider", tabindex: 0, hidden: true,
    "aria-label": "Source beside the clip", "aria-valuemin": 0, "aria-valuemax": 100,
  });
  const name = (text, side) => h("span", { class: `name ${side}`, hidden: true, "aria-hidden": "true" }, text);
  const names = [name("Source", "left"), name("Clip", "right")];
  const wait = h("p", { class: "wait", role: "status" });
  const stage = h("div", { class: "stage" }, canvas, source, ...names, handle, wait);
  const buttons = {
    previous: iconButton("previous", "Frame before (,)", () => player.step(-1)),
    play: iconButton("play", "Play (space)", () => player.toggle()),
    pause: iconButton("pause", "Pause (space)", () => player.toggle(), { hidden: true }),
    next: iconButton("next", "Next frame (.)", () => player.step(1)),
  };
  const slider = h("input", { type: "range", min: 1, max: 1, value: 1, step: 1, "aria-label": "Frame", input: () => player.seek(slider.value - 1) });
  const number = h("span", { class: "number soft" });
  const ground = (name) => {
    const input = h("input", { type: "radio", name: "ground", value: name, "aria-label": GROUNDS[name], change: () => (player.ground = name) });
    return h("label", { class: name, title: GROUNDS[name] }, input);
  };
  const colour = h("input", { type: "color", value: "#3b8edb", "aria-label": "Own colour", input: () => (player.ground = colour.value) });
  const own = h("label", { class: "own", title: "Own colour" }, colour);
  const grounds = h("fieldset", { "aria-label": "Ground", hidden: true }, ...Object.keys(GROUNDS).map(ground), own);
  const bar = h(
    "div", { class: "bar", hidden: true },
    h("div", { class: "group" }, ...Object.values(buttons)), h("div", { class: "scrub" }, slider, number), grounds,
  );
  shadow(player, look, stage, h("div", { class: "controls" }, bar));
  return { canvas, source, handle, names, wait, stage, buttons, slider, number, own, grounds, bar };
}

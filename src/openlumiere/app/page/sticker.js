/** The field that says for which messenger or chat a sticker is, and how it is cut. */

import { h } from "./dom.js";
import { choiceField, colourField, numberField, switchField } from "./fields.js";
import { STICKERS } from "./tasks.js";

export function stickerField() {
  const names = Object.fromEntries(Object.entries(STICKERS).map(([target, { name }]) => [target, name]));
  const field = choiceField("sticker", "Sticker for", { "": "none", ...names }, { start: "" });
  field.control.className = "chips choices";
  const rules = h("p.soft");
  const crop = switchField("crop", "Cut to the subject");
  const speed = switchField("speed_up", "Faster rather than cut");
  const outline = numberField("outline", "Outline, pixels", { min: 0, max: 64, placeholder: "0" });
  const colour = colourField("outline_colour", "Its colour");
  const shape = h("div.pair", {}, outline.element, colour.element, crop.element);
  const more = h("div.fine", {}, rules, shape, speed.element);
  const parts = [crop, speed, outline, colour];
  field.element.append(more);
  const target = () => field.read().sticker;
  const draw = () => {
    more.hidden = !target();
    rules.textContent = STICKERS[target()]?.rules ?? "";
  };
  field.control.addEventListener("change", draw);
  return {
    ...field,
    parts,
    /** `shapes`: whether clips can be transparent, without which there is nothing to cut out. */
    offer({ targets, shapes, needed }) {
      shape.hidden = !shapes;
      for (const label of field.control.children) {
        const { value } = label.firstChild;
        label.hidden = value ? targets && !targets.includes(value) : needed;
      }
      if (needed && !target()) field.fill({ sticker: Object.keys(STICKERS)[0] });
      draw();
    },
    read() {
      if (!target()) return {};
      const options = Object.assign({}, ...parts.map((part) => part.read()));
      return { sticker: { target: target(), ...options } };
    },
    fill({ sticker }) {
      field.fill({ sticker: sticker?.target });
      parts.forEach((part) => part.fill(sticker ?? {}));
      draw();
    },
  };
}

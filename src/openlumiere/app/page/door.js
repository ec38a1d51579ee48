/** The form that asks for a key, where the server wants one. */

import * as api from "./api.js";
import { $, h } from "./dom.js";
import { complain, labelled } from "./fields.js";

/** Show the door; resolves when a key has opened it. */
export function signIn() {
  const input = h("input", { type: "password", autocomplete: "current-password", required: true, spellcheck: false });
  const field = labelled(["key"], "Your key", input);
  const button = h("button.first", { type: "submit" }, "Sign in");
  // Password managers file a password under a name.
  const name = h("input", { type: "text", autocomplete: "username", value: "lumiere", hidden: true });
  const form = h("form.door", { novalidate: "" }, name, h("div.lamp"), h("h2", {}, "Sign in"), field.element, button,
    h("p.soft", {}, "Whoever runs this server makes keys with ", h("code", {}, "lumiere keys add"), "."));
  $("door").replaceChildren(form);
  $("door").hidden = false;
  input.focus();
  return new Promise((resolve) => form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    complain(field, "");
    try {
      await api.signIn(input.value.trim());
      $("door").hidden = true;
      resolve();
    } catch (error) {
      complain(field, error.status === 401 ? "This key is not known here." : error.message);
      input.focus();
    } finally {
      button.disabled = false;
    }
  }));
}

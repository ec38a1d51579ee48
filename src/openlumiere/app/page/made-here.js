/** "Was this made here?": of a clip that is dropped or chosen, what its watermark and its credentials say. */

import * as api from "./api.js";
import { $, h, stillPreferred } from "./dom.js";
import { icon } from "./icons.js";
import { media, sourceOfFile } from "./source.js";
import { monthOf, oneIn, seconds } from "./words.js";

/** @param limits of uploads, as the server says. The button that opens it stands in the page's header. */
export function offerDetection({ limits }) {
  const input = h("input.unseen", { type: "file", accept: "image/*,video/*,.mkv,.apng", "aria-label": "Clip or picture" });
  const well = h("label.well", {}, input, icon("upload"), h("span", {}, "Drop a clip or a picture, or choose one"));
  const told = h("div.told", { role: "status" });
  const error = h("p.error", { role: "alert", hidden: true });
  const dialog = h("dialog.made-here", { "aria-labelledby": "made-here-title" }, h("div.sheet", {},
    h("header", {}, h("h2", { id: "made-here-title" }, "Was this made here?"),
      h("button.round", { type: "button", title: "Close", "aria-label": "Close", onclick: () => dialog.close() }, icon("close"))),
    h("p.soft", {}, "Clips of this server carry a mark that nobody sees. A file is looked at, and not kept."),
    well, error, told));
  let url = null;
  let looking = null;

  const forget = () => {
    looking?.abort();
    if (url) URL.revokeObjectURL(url);
    url = null;
    told.replaceChildren();
    error.hidden = true;
  };
  const fail = (message) => {
    error.textContent = message;
    error.hidden = false;
  };
  async function look(file) {
    forget();
    if (file.size > limits.bytes) {
      fail(`This file has ${megabytes(file.size)}; at most ${megabytes(limits.bytes)} are taken.`);
      return;
    }
    const source = sourceOfFile(file);
    url = source.url;
    told.replaceChildren(h("p", { "aria-busy": true }, "Looking …"));
    const mine = looking = new AbortController();
    try {
      const found = await api.detect(file, mine.signal);
      if (mine === looking) told.replaceChildren(...describe(found, source));
    } catch (failure) {
      if (failure.name === "AbortError") return;
      told.replaceChildren();
      fail(failure.message.replace(/^file(\.\w+)?(?= )/, () => file.name));  // as the server calls it
    }
  }

  input.addEventListener("change", () => {
    if (input.files[0]) look(input.files[0]);
    input.value = "";
  });
  takeFiles(dialog, well, look);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });  // beside it
  dialog.addEventListener("close", forget);
  document.body.append(dialog);
  $("made-here").hidden = false;
  $("made-here").addEventListener("click", () => dialog.showModal());
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Files that are dropped or pasted while the dialog is open are its own, and not the form's. */
function takeFiles(dialog, well, look) {
  const over = (is) => well.classList.toggle("over", is);
  for (const type of ["dragenter", "dragover"]) {
    dialog.addEventListener(type, (event) => {
      event.preventDefault();
      event.stopPropagation();
      over(true);
    });
  }
  dialog.addEventListener("dragleave", (event) => {
    event.stopPropagation();
    if (!dialog.contains(event.relatedTarget)) over(false);
  });
  for (const [type, filesOf] of [["drop", (event) => event.dataTransfer.files], ["paste", (event) => event.clipboardData.files]]) {
    dialog.addEventListener(type, (event) => {
      event.preventDefault();
      event.stopPropagation();
      over(false);
      const [file] = filesOf(event);
      if (file) look(file);
    });
  }
}

/** What was found, from the answer to what it rests on. */
function describe(found, source) {
  const signed = found.credentials?.signed_here && found.credentials.state === "trusted";
  const answer = found.marked ? "Yes, it was made here." : signed ? "Yes, its credentials say so." : "No mark of this server was found.";
  return [
    h(found.marked || signed ? "p.verdict.yes" : "p.verdict", {}, icon(found.marked || signed ? "check" : "search"), answer),
    !found.marked && h("p.soft", {}, signed
      ? "Its pictures carry no mark that could be found; but the file is as it was signed here."
      : "That does not prove that it comes from elsewhere. Marks are lost when a clip is compressed, cropped or blurred "
        + "strongly, or on purpose; and some clips are made without."),
    picture(found, source),
    h("dl", {}, ...facts(found).flatMap(([name, ...words]) => [h("dt", {}, name), h("dd", {}, ...words)])),
  ].filter(Boolean);
}

function facts({ marked, payload, p_value: chance, false_positive_rate: limit, credentials, parts, scale, degrees }) {
  const every = [];
  if (payload) {
    every.push(["Made by", `${payload.model}, openlumiere ${payload.release}`], ["When", monthOf(payload.month)]);
    every.push(["Key", `this server's, number ${payload.key_id}`]);
  } else if (marked) {
    every.push(["Made by", "What the mark says is no longer readable."]);
  }
  const changed = [scale > 1.03 && "cropped", Math.abs(degrees ?? 0) >= 2 && `turned by ${Math.abs(Math.round(degrees))}°`].filter(Boolean);
  if (changed.length) every.push(["Since then", changed.join(", ")]);
  if (parts.length) every.push(["Parts", counted(parts)]);
  every.push(["Certainty", marked
    ? `Of clips without a mark, at most ${oneIn(chance)} would look marked like this one. ${oneIn(limit)} is where we draw the line.`
    : `A clip counts as marked when at most ${oneIn(limit)} without a mark would look like it. This one looks ${chance < 0.05 ? "a little like a marked one, but not enough" : "like any clip without"}.`]);
  every.push(["Credentials", credentials ? signedBy(credentials) : "The file has none. Most sites and programs drop them."]);
  return every;
}

function counted(parts) {
  const flat = parts.flat();
  const marked = flat.filter(Boolean).length;
  return marked === flat.length ? "The mark is found all over the picture." : `The mark is found in ${marked} of ${flat.length} parts of the picture; where that is busy, it may be missed.`;
}

function signedBy({ state, signer, signed_here: here, when, generator, model, problem }) {
  const who = here ? "this server" : signer || "someone unknown";
  const at = when ? `, ${new Date(when).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" })}` : "";
  const made = [generator, model].filter(Boolean).join(", ");
  const words = {
    trusted: `Signed by ${who}${at}; unchanged since.`,
    untrusted: `Signed by ${who}${at}; unchanged since. Nobody whom this server trusts vouches for the name.`,
    changed: `Signed by ${who}${at}, and changed since.`,
    invalid: `Damaged: ${problem || "they can't be checked"}.`,
  }[state];
  return made ? `${words} Written by ${made}.` : words;
}

/** The clip with the parts that are marked, and below it the seconds that are. */
function picture(found, source) {
  const shown = media(source, source.name);
  if (source.film && stillPreferred()) Object.assign(shown, { controls: true, autoplay: false });
  const screen = h("div.screen", {}, shown);
  screen.style.setProperty("--ratio", found.width / found.height);
  const unseen = h("p.soft", { hidden: true }, "Your browser can't show this kind of file.");
  shown.addEventListener("error", () => {
    shown.remove();
    unseen.hidden = false;
  });
  const overlay = found.parts.length > 0 && partsOverlay(found.parts);
  if (overlay) screen.append(overlay);
  return h("figure", {}, screen, unseen,
    overlay && switchOf("Show the marked parts", (on) => { overlay.hidden = !on; }),
    found.marked && found.duration > 0 && timeline(found.seconds, found.duration));
}

function partsOverlay(parts) {
  const grid = h("div.parts", { role: "img", "aria-label": counted(parts) }, ...parts.flat().map((marked) => h(marked ? "i.marked" : "i")));
  grid.style.setProperty("--columns", parts[0].length);
  return grid;
}

function switchOf(label, changed) {
  const input = h("input", { type: "checkbox", checked: true, role: "switch", onchange: () => changed(input.checked) });
  return h("div.switch", {}, h("label", {}, input, h("span.track"), label));
}

/** A cell for each second, filled where it is marked. */
function timeline(spans, duration) {
  const isMarked = (second) => spans.some(([from, to]) => from <= second && second < to);
  const cells = Array.from({ length: Math.ceil(duration) }, (_, second) => isMarked(second));
  const words = cells.every(Boolean) ? "Marked from beginning to end."
    : spans.length ? `Marked: ${spans.map(([from, to]) => `${from} to ${seconds(Math.min(to, duration))}`).join(", ")}.`
      : "No single second is marked surely; all of them together are.";
  const line = h("div.seconds", { "aria-hidden": "true" }, ...cells.map((marked, second) => {
    const cell = h(marked ? "i.marked" : "i");
    cell.style.setProperty("--part", Math.min(1, duration - second));
    return cell;
  }));
  return h("div.timeline", {}, line, h("p.soft", {}, words, h("span", { "aria-hidden": "true" }, seconds(duration))));
}

/** One video, large: how far it is, or the clip itself with all that can be done with it. */

import { remove, repeat, setFavourite, stop, tried } from "./actions.js";
import * as api from "./api.js";
import { $, announce, copy, h, save } from "./dom.js";
import { icon } from "./icons.js";
import { drawPreview } from "./running.js";
import { STICKERS, TASKS, nameOf, titleOf } from "./tasks.js";
import { isRunning, videos } from "./videos.js";
import { about, ago, doing } from "./words.js";

/** Events: "use" (detail: {video}: its settings), "goOn" (detail: {video, task}), "again" (detail: the new video). */
export class Result extends EventTarget {
  #place = $("stage");
  #id = null;
  #drawn = "";

  constructor() {
    super();
    const follow = ({ detail }) => { if (detail.id === this.#id) this.#draw(); };
    videos.addEventListener("change", follow);
    videos.addEventListener("gone", follow);
    this.#draw();
  }

  get id() { return this.#id; }

  show(id) {
    this.#id = id;
    this.#draw();
  }

  #draw() {
    const video = videos.get(this.#id);
    const kind = video ? `${video.id} ${isRunning(video) ? "running" : video.status}` : "empty";
    if (kind !== this.#drawn) {
      this.#drawn = kind;
      this.#place.dataset.kind = kind.split(" ").at(-1);
      if (!video) this.#place.replaceChildren(empty());
      else if (isRunning(video)) this.#place.replaceChildren(...this.#makeRunning(video));
      else if (video.status === "completed") this.#place.replaceChildren(...this.#makeDone(video));
      else this.#place.replaceChildren(...this.#makeFailed(video));
    }
    if (video) this.#update?.(video);
  }

  #update = null;

  #makeRunning(video) {
    const picture = h("div.screen.waiting");
    const words = h("p.doing");
    const bar = h("progress", { max: 100, value: 0, "aria-label": "Progress of the clip" });
    const end = h("button", { type: "button", onclick: () => stop(video, end) }, icon("stop"), "Stop");
    this.#update = (now) => {
      drawPreview(picture, now);
      words.textContent = doing(now);
      bar.value = now.progress ?? 0;
    };
    return [h("div.player", {}, picture), h("div.side", {}, ...heading(video), changes(video), words, bar, h("div.actions", {}, end))];
  }

  #makeFailed(video) {
    this.#update = null;
    const stopped = video.error?.code === "cancelled";
    const words = stopped ? "Stopped." : `Not made: ${video.error?.message ?? "the server does not say why"}`;
    const kept = video.formats?.length > 0;  // what the first stage had finished
    return [
      h("div.player", {}, kept ? player(video) : h("div.screen.waiting", {}, icon(stopped ? "stop" : "alert"))),
      h("div.side", {}, ...heading(video), changes(video), h("p", {}, words), this.#again(video), kept && downloads(video), this.#keep(video)),
    ];
  }

  #makeDone(video) {
    const favourite = this.#keep(video);
    this.#update = (now) => favourite.update(now);
    return [
      h("div.player", {}, player(video)),
      h("div.side", {}, ...heading(video), h("p.soft", {}, about(video)), changes(video), this.#again(video), downloads(video),
        this.#onward(video), recipe(video), favourite),
    ];
  }

  #again(video) {
    const go = (options) => async ({ currentTarget: button }) => {
      const made = await repeat(video, options, button);
      if (made) this.#tell("again", made);
    };
    return h("div.actions", {},
      h("button", { type: "button", onclick: go({ seed: null }) }, icon("dice"), "Another seed"),
      h("button", { type: "button", onclick: go({}) }, icon("again"), "Again"),
      h("button", { type: "button", onclick: () => this.#tell("use", { video }) }, icon("sliders"), "Edit"));
  }

  #onward(video) {
    const tasks = TASKS.filter((task) => task.source);
    const button = (task) => h("button.chip", {
      type: "button", onclick: () => this.#tell("goOn", { video, task }),
    }, icon(task.icon), task.name);
    return h("div.group", { role: "group", "aria-labelledby": "onward" }, h("h3", { id: "onward" }, "Go on from here"),
      h("div.chips", {}, tasks.filter((task) => this.able(video, task)).map(button)));
  }

  /** Whether the model can do a task; set by the page. */
  able = () => true;

  #keep(video) {
    const heart = h("button", { type: "button", onclick: () => setFavourite(video, heart.getAttribute("aria-pressed") !== "true") });
    const element = h("div.actions.quiet", {}, heart,
      h("button", { type: "button", onclick: () => remove(video) }, icon("trash"), "Delete"));
    element.update = (now) => {
      heart.setAttribute("aria-pressed", String(Boolean(now.favourite)));
      heart.replaceChildren(icon("heart"), now.favourite ? "Favourite" : "Add to favourites");
    };
    element.update(video);
    return element;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

function empty() {
  return h("div.nothing", {}, h("div.lamp"), h("p", {}, "What you make appears here."));
}

function heading(video) {
  const when = video.completed_at ?? video.created_at;
  const seed = video.seed === null || video.seed === undefined ? [] : [`seed ${video.seed}`];
  const styles = (video.request?.styles ?? []).map(([name, strength]) => `${name} ${Math.round(strength * 100)} %`);
  return [
    h("h2.title", { tabIndex: -1 }, titleOf(video)),
    h("p.soft", {}, [nameOf(video), ...styles, ...seed, ago(when)].join(" · ")),
  ];
}

/** What is not as it was asked for, and why. */
function changes(video) {
  if (!video.changes?.length) return null;
  return h("ul.changes", { "aria-label": "Changed" }, video.changes.map((change) => h("li", {}, change)));
}

function player(video) {
  return h("clip-player", {
    src: api.contentOf(video.id, { format: "webp" }), fps: video.fps, frames: video.num_frames,
    compare: video.source ? api.sourceOf(video.id) : null, label: titleOf(video),
  });
}

function downloads(video) {
  const one = (words, query) => h("button.chip", {
    type: "button",
    async onclick({ currentTarget: button }) {
      button.setAttribute("aria-busy", "true");
      const file = await tried(() => api.download(api.contentOf(video.id, { ...query, download: 1 })), button);
      button.removeAttribute("aria-busy");
      if (!file) return;
      save(file.blob, file.name ?? `${video.id}.${query.format ?? "webp"}`);
      announce(`${words} is saved`);
    },
  }, words);
  const formats = (video.formats ?? []).filter((format) => format !== "png");
  const own = video.sticker ? [one(`${STICKERS[video.sticker]?.name ?? video.sticker} sticker`, { sticker: video.sticker })] : [];
  const others = Object.entries(STICKERS).filter(([target]) => target !== video.sticker);
  return h("div.group", { role: "group", "aria-labelledby": "save" }, h("h3", { id: "save" }, icon("download"), "Save as"),
    h("div.chips", {}, own, formats.map((format) => one(NAMES[format] ?? format.toUpperCase(), { format }))),
    h("details", {}, h("summary", {}, "Sticker for"),
      h("div.chips", {}, others.map(([target, { name }]) => one(name, { sticker: target })))));
}

const NAMES = { webp: "WebP", webm: "WebM" };

function recipe(video) {
  const block = (words, text) => text && h("div.code", {}, h("pre", { tabIndex: 0, "aria-label": words }, text),
    h("button.round", {
      type: "button", title: "Copy", "aria-label": `Copy the ${words}`,
      onclick: () => copy(text).then(() => announce("Copied")),
    }, icon("copy")));
  return h("details", {}, h("summary", {}, "Command and Python"), block("command", video.command), block("Python", video.python));
}

/** All finished videos, newest first: search, favourites, and more as one scrolls. */

import { remove, setFavourite } from "./actions.js";
import * as api from "./api.js";
import { $, calmly, h, stillPreferred } from "./dom.js";
import { icon } from "./icons.js";
import { nameOf, titleOf } from "./tasks.js";
import { failed } from "./toast.js";
import { isRunning, videos } from "./videos.js";
import { about } from "./words.js";

export class Gallery {
  #tiles = new Map();  // by id
  #list = h("ul.tiles");
  #search = h("input", { type: "search", placeholder: "Search", "aria-label": "Search the clips", autocomplete: "off" });
  #only = h("button.round", { type: "button", title: "Favourites", "aria-label": "Only favourites", "aria-pressed": false }, icon("heart"));
  #none = h("p.soft", { hidden: true });
  #end = h("div.end");
  #last = null;  // the id after which there is more
  #loading = null;
  #choose;

  /** @param choose called with the id of a tile that is clicked. */
  constructor(choose) {
    this.#choose = choose;
    $("clips").append(h("div.bar", {}, h("h2", { id: "clips-title" }, "Clips"),
      h("span.search", {}, icon("search"), this.#search), this.#only), this.#none, this.#list, this.#end);
    this.#search.addEventListener("input", calmly(() => this.#reload()));
    this.#only.addEventListener("click", () => {
      this.#only.setAttribute("aria-pressed", String(!this.#favourites));
      this.#reload();
    });
    videos.addEventListener("change", ({ detail }) => this.#follow(detail));
    videos.addEventListener("gone", ({ detail }) => this.#drop(detail.id));
    new IntersectionObserver(([entry]) => entry.isIntersecting && this.#last && this.#more(), { rootMargin: "600px" })
      .observe(this.#end);
  }

  get #favourites() { return this.#only.getAttribute("aria-pressed") === "true"; }
  get #filtered() { return this.#favourites || this.#search.value.trim() !== ""; }

  mark(id) {
    for (const [own, tile] of this.#tiles) tile.element.classList.toggle("chosen", own === id);
  }

  load = () => this.#reload();

  async #reload() {
    this.#last = null;
    this.#loading?.abort();
    this.#loading = null;
    await this.#more(true);
  }

  async #more(anew = false) {
    if (this.#loading) return;
    const loading = this.#loading = new AbortController();
    try {
      const query = { search: this.#search.value.trim(), favourites: this.#favourites, after: this.#last, signal: loading.signal };
      const page = await api.list(query);
      if (this.#loading !== loading) return;
      if (anew) [...this.#tiles.keys()].forEach((id) => this.#drop(id));
      this.#shown = new Set([...(anew ? [] : this.#shown), ...page.data.map((video) => video.id)]);
      page.data.forEach((video) => videos.put(video));
      this.#last = page.has_more ? page.last_id ?? page.data.at(-1)?.id : null;
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    } finally {
      if (this.#loading === loading) this.#loading = null;
    }
    this.#sayNone();
  }

  #shown = new Set();  // what the server found

  /** Keep up with a video that has changed: what is new belongs on top, unless something is searched for. */
  #follow(video) {
    const tile = this.#tiles.get(video.id);
    if (isRunning(video)) return;
    if (this.#favourites && !video.favourite) return this.#drop(video.id);
    if (tile) return tile.update(video);
    if (this.#filtered && !this.#shown.has(video.id)) return;
    const made = makeTile(video, this.#choose);
    const after = [...this.#tiles.values()].find((other) => isBefore(video, other.video));
    this.#tiles.set(video.id, made);
    if (after) after.element.before(made.element);
    else this.#list.append(made.element);
    this.#order();
    this.#sayNone();
  }

  #order() {
    this.#tiles = new Map([...this.#tiles].sort(([, a], [, b]) => (isBefore(a.video, b.video) ? -1 : 1)));
  }

  #drop(id) {
    this.#tiles.get(id)?.element.remove();
    this.#tiles.delete(id);
    this.#sayNone();
  }

  #sayNone() {
    this.#none.hidden = this.#tiles.size > 0;
    this.#none.textContent = this.#filtered ? "Nothing like that." : "Nothing yet.";
  }
}

const isBefore = (one, other) => one.created_at > other.created_at
  || (one.created_at === other.created_at && one.id > other.id);

function makeTile(video, choose) {
  const name = titleOf(video);
  const picture = h("span.thumbnail");
  const open = h("button.open", { type: "button", title: name, onclick: () => choose(video.id) }, picture,
    h("span.prompt", {}, name), h("span.soft", {}));
  const heart = h("button.round", { type: "button", onclick: () => setFavourite(tile.video, !tile.video.favourite) }, icon("heart"));
  const bin = h("button.round", { type: "button", "aria-label": `Delete: ${name}`, title: "Delete", onclick: () => remove(video) }, icon("trash"));
  const element = h("li.tile", {}, open, h("span.tools", {}, heart, bin));
  if (video.status === "completed") {
    picture.append(h("img", { src: api.thumbnailOf(video.id), alt: "", loading: "lazy", decoding: "async" }));
    playWhenPointedAt(open, picture, video);
  } else picture.append(icon(video.error?.code === "cancelled" ? "stop" : "alert"));
  const tile = {
    video, element,
    update(now) {
      tile.video = now;
      heart.setAttribute("aria-pressed", String(Boolean(now.favourite)));
      heart.setAttribute("aria-label", `${now.favourite ? "No longer a favourite" : "Favourite"}: ${name}`);
      element.classList.toggle("favourite", Boolean(now.favourite));
      picture.classList.toggle("checker", Boolean(now.transparent));
      open.lastChild.textContent = settings(now);
    },
  };
  tile.update(video);
  return tile;
}

function settings(video) {
  if (video.status !== "completed") return video.error?.code === "cancelled" ? "stopped" : "not made";
  return [nameOf(video), ...(video.request?.styles ?? []).map(([style]) => style), about(video, { size: false })].join(" · ");
}

/** Thumbnails stand still until the mouse or the focus is on them. */
function playWhenPointedAt(button, picture, video) {
  const play = () => {
    if (stillPreferred() || video.transparent || picture.querySelector("video")) return;
    const film = h("video", { src: api.contentOf(video.id, { format: "mp4" }), muted: true, loop: true, playsInline: true });
    picture.append(film);
    film.play().catch(() => film.remove());
  };
  const stop = () => picture.querySelector("video")?.remove();
  for (const type of ["pointerenter", "focus"]) button.addEventListener(type, play);
  for (const type of ["pointerleave", "blur"]) button.addEventListener(type, stop);
}

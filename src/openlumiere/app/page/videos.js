/** All of the user's videos that the page knows, kept as the server tells them. */

import * as api from "./api.js";

const RETRY = 3000;  // milliseconds between attempts to hear from the server again

export const isRunning = (video) => video.status === "queued" || video.status === "in_progress";

/** Events: "change" and "gone" (detail: a video), "line" (detail: whether the server can be heard). */
class Videos extends EventTarget {
  #known = new Map();
  #source = null;

  get = (id) => this.#known.get(id);
  all = () => [...this.#known.values()].sort((a, b) => b.created_at - a.created_at || (a.id < b.id ? 1 : -1));
  running = () => this.all().filter(isRunning).reverse();

  put(video) {
    const before = this.#known.get(video.id);
    if (before && !isRunning(before) && isRunning(video)) return;  // an answer that an event has overtaken
    this.#known.set(video.id, video);
    this.#tell("change", video);
  }

  forget(id) {
    const video = this.#known.get(id);
    if (this.#known.delete(id)) this.#tell("gone", video);
  }

  async load(query = {}) {
    const page = await api.list(query);
    page.data.forEach((video) => this.put(video));
    return page;
  }

  /** Find again what has happened while nobody listened. */
  async refresh() {
    const before = this.all();  // what is asked for meanwhile need not be on the list
    const page = await this.load();
    const here = new Set(page.data.map((video) => video.id));
    const oldest = page.has_more ? page.data.at(-1).created_at : 0;
    for (const video of before) if (video.created_at > oldest && !here.has(video.id)) this.forget(video.id);
  }

  /** Hear of every change; hidden tabs hang up, since browsers allow few lines to one server. */
  listen() {
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#hangUp() : this.#call()));
    if (!document.hidden) this.#call();
  }

  #call() {
    this.#hangUp();
    const source = this.#source = new EventSource("/v1/videos/events");
    source.addEventListener("open", () => {
      this.#tell("line", true);
      this.refresh().catch(() => {});
    });
    source.addEventListener("video", (event) => this.put(JSON.parse(event.data)));
    source.addEventListener("deleted", (event) => this.forget(JSON.parse(event.data).id));
    source.addEventListener("error", () => {
      this.#tell("line", false);
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this.#source === source && this.#call(), RETRY);
    });
  }

  #hangUp() {
    this.#source?.close();
    this.#source = null;
  }

  #tell(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export const videos = new Videos();

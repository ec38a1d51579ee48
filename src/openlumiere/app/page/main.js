/** Puts the page together. */

import * as api from "./api.js";
import { tried } from "./actions.js";
import { signIn } from "./door.js";
import { $, show } from "./dom.js";
import { takeDrops } from "./drop.js";
import { Composer } from "./form.js";
import { Gallery } from "./gallery.js";
import { offerDetection } from "./made-here.js";
import { filesOf } from "./request.js";
import { Result } from "./result.js";
import { showRunning } from "./running.js";
import { sourceOfFile, sourceOfVideo } from "./source.js";
import { serverTask } from "./tasks.js";
import { videos } from "./videos.js";
import "./clip-player.js";
import "./frame-editor.js";
import "./mask-editor.js";
import "./path-editor.js";

async function begin() {
  let session = await api.session();
  if (session.keys_needed && !session.signed_in) {
    await signIn();
    session = await api.session();
  }
  const models = await api.models();
  const composer = new Composer($("composer"), models, session.limits);
  const result = new Result();
  const choose = (id, { jump = true } = {}) => {
    history.replaceState(null, "", id ? `/v/${id}` : "/");
    result.show(id);
    gallery.mark(id);
    markRunning(id);
    if (jump && (innerWidth < NARROW || $("stage").getBoundingClientRect().top < 0)) show($("stage"));
  };
  const gallery = new Gallery(choose);
  const markRunning = showRunning(choose);
  takeDrops(composer);
  offerDetection(session);
  result.able = (video, task) => models.find((model) => model.id === video.model)?.tasks.includes(serverTask(task)) ?? true;
  wire(composer, result, choose);
  $("leave").hidden = !session.keys_needed;
  $("leave").addEventListener("click", () => tried(async () => {
    await api.signOut();
    location.reload();
  }));
  videos.addEventListener("line", ({ detail: heard }) => { $("line").hidden = heard; });
  $("app").hidden = false;
  await gallery.load();
  videos.listen();
  await openFirst(choose);
  document.body.dataset.state = "ready";
}

const NARROW = 900;  // pixels, as in style.css: all in one column

/** Where all is in one column, the form may be out of sight. */
const toForm = () => { if (innerWidth < NARROW) show($("composer")); };

function wire(composer, result, choose) {
  composer.addEventListener("made", ({ detail: { video, number } }) => {
    videos.put(video);
    if (number === 0) choose(video.id);
  });
  result.addEventListener("again", ({ detail: video }) => choose(video.id));
  result.addEventListener("goOn", ({ detail: { video, task } }) => {
    composer.chooseModel(video.model);
    composer.start(sourceOfVideo(video), task);
    toForm();
  });
  result.addEventListener("use", ({ detail: { video } }) => tried(async () => {
    const files = await filesOf(video);
    composer.chooseModel(video.model);
    composer.fill({ ...video.request, seed: video.seed }, {
      source: files.input_reference && sourceOfFile(files.input_reference),
      last: files.last_frame && sourceOfFile(files.last_frame), mask: files.mask,
      references: files.reference?.map(sourceOfFile),
    });
    toForm();
  }));
}

/** What the address names, else what is being made, else the newest. */
async function openFirst(choose) {
  const named = location.pathname.split("/v/")[1] ?? "";
  if (named && !videos.get(named)) await api.retrieve(named).then((video) => videos.put(video), () => {});
  const first = videos.get(named) ?? videos.running()[0] ?? videos.all()[0];
  if (first) choose(first.id, { jump: false });
}

begin().catch((error) => {
  $("line").textContent = error.message;
  $("line").hidden = false;
});

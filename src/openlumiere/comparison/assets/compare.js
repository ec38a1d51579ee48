// All models' clips of each prompt beside each other: one clock that every clip in sight keeps to.
"use strict";

const report = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);

const DRIFT = 0.06; // seconds that a clip may be off the clock: a frame at 16 a second
const LOST = 2000; // milliseconds after which the clock waits for a clip no longer
const NUDGE = 0.001; // seconds into a frame, so that rounding shows none before it

function make(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  const { data = {}, attributes = {}, ...properties } = options;
  Object.assign(element, properties);
  Object.assign(element.dataset, data);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.filter((child) => child !== null));
  return element;
}

const count = (number, one) => `${number} ${one}${number === 1 ? "" : "s"}`;

/* Tables */

function cell(value, digits, interval, of) {
  const number = (x) => x.toFixed(digits);
  const sure = interval ? `${number(interval[0])} to ${number(interval[1])}` : "no interval";
  return make("td", {}, make("span", { className: "value" }, number(value)), make("small", {}, sure), make("small", {}, of));
}

function distance(fvd) {
  if (!fvd || fvd.failed) return make("td", { className: "long" }, fvd ? `not measured: ${fvd.failed}` : "–");
  return cell(fvd.value, 1, fvd.interval_95, `${fvd.clips.generated} clips, ${fvd.clips.real} real`);
}

function table(element, heads, rows) {
  const columns = heads.map(([title, unit]) =>
    make("th", { attributes: { scope: "col" } }, title, unit ? make("small", {}, unit) : null));
  element.append(make("thead", {}, make("tr", {}, ...columns)), make("tbody", {}, ...rows));
}

const named = (entry, ...cells) => make("tr", {}, make("th", { attributes: { scope: "row" } }, entry.name), ...cells);

function showMeasures() {
  const measures = Object.entries(report.measures).filter(([key]) => report.entries.some((entry) => entry.measures[key]));
  const distances = report.entries.map((entry) => entry.fvd).filter(Boolean);
  const heads = [["", ""], ...measures.map(([, measure]) => [measure.title, measure.unit])];
  if (distances.length) heads.push([distances.find((each) => each.metric)?.metric ?? "FVD", "from the real clips"]);
  table(find("measured"), heads, report.entries.map((entry) => named(
    entry,
    ...measures.map(([key, measure]) => {
      const found = entry.measures[key];
      if (!found) return make("td", {}, "–");
      const of = found.clips === found.prompts ? count(found.clips, "clip") : `${count(found.clips, "clip")}, ${count(found.prompts, "prompt")}`;
      return cell(found.value, measure.digits, found.interval_95, of);
    }),
    ...(distances.length ? [distance(entry.fvd)] : []),
  )));
  for (const [, measure] of measures) find("meanings").append(make("dt", {}, measure.title), make("dd", {}, measure.meaning));
}

function showModels() {
  const list = (values) => (values?.length ? values.join(", ") : "–");
  const heads = [["", ""], ["source", ""], ["revision of the weights", ""], ["licence", ""], ["clips", ""], ["settings", ""]];
  table(find("made"), heads, report.entries.map((entry) => {
    const facts = entry.facts;
    const licence = list(facts.licence ?? (entry.licence ? [entry.licence] : []));
    const shapes = entry.shapes.map((s) => `${s.width}×${s.height}, ${s.num_frames} frames at ${+s.fps.toFixed(2)} a second`);
    const settings = [
      facts.num_inference_steps && `${list(facts.num_inference_steps)} steps`,
      facts.guidance_scale && `guidance ${list(facts.guidance_scale)}`,
      facts.device && `${list(facts.device)}, ${list(facts.dtype)}`,
      !entry.text && "not told the prompt",
      entry.starts_from && `starts from pictures: ${entry.starts_from}`,
      ...entry.changes,
    ].filter(Boolean);
    return named(
      entry,
      make("td", { className: "long" }, entry.from_clips ? `clips of another program: ${entry.from_clips}` : list(facts.model ?? [entry.model])),
      make("td", { className: "long" }, list(facts.weights)),
      make("td", { className: "long" }, licence, entry.commercial === false ? make("span", { className: "warn" }, " (non-commercial)") : null),
      make("td", {}, String(entry.clips), ...shapes.map((shape) => make("small", {}, shape))),
      make("td", { className: "long" }, settings.length ? settings.join("; ") : "–"),
    );
  }));
}

function showRest() {
  const clips = count(report.clips.length, "clip");
  find("about").textContent = `${report.entries.map((entry) => entry.name).join(", ")}: ${count(report.prompts, "prompt")}, ${clips}`;
  find("lacking").hidden = !report.missing.length;
  find("missing").append(...report.missing.map((one) => make("li", {}, `${one.name}, “${one.prompt}”, seed ${one.seed}: ${one.reason}`)));
  find("again").hidden = !report.command;
  find("command").textContent = report.command;
}

/* Clips: one row for each prompt and seed. A clip is loaded when it comes into sight, and let go of when it leaves. */

const players = new Map(); // video: its clip's duration and rate, whether it keeps to the clock yet, and since when it waits
const durationOf = (clip) => clip.shape.num_frames / clip.shape.fps;
const rates = report.clips.map((clip) => clip.shape.fps);
const frame = 1 / Math.max(...rates, 1);

const watcher = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) (isIntersecting ? load : unload)(target);
}, { rootMargin: "120px" });

function load(video) {
  if (video.hasAttribute("src")) return;
  const player = players.get(video);
  video.src = video.dataset.src;
  video.onloadeddata = () => {
    player.ready = true;
    player.since = performance.now();
    seek(video);
  };
  video.onerror = () => video.replaceWith(make("p", {}, "This browser cannot play the clip."));
}

function unload(video) {
  players.get(video).ready = false;
  video.onloadeddata = video.onerror = null;
  video.removeAttribute("src");
  video.load();
}

function showClip(entry, shot) {
  const own = (each) => each.name === entry.name && each.prompt === shot.prompt && (each.seed === shot.seed || (each.seed === null && shot.index === 0));
  const clip = report.clips.find(own);
  if (!clip) {
    if (entry.from_clips && shot.index > 0) return null; // folders have one clip of a prompt
    const reason = report.missing.find(own)?.reason ?? "not made";
    return make("figure", { className: "cell", data: { entry: entry.name } },
      make("div", { className: "screen", attributes: { style: "--aspect: 1" } }, make("p", {}, `No clip: ${reason}`)),
      make("figcaption", {}, make("strong", {}, entry.name)));
  }
  const { width, height, num_frames, fps } = clip.shape;
  const address = clip.file.split("/").map(encodeURIComponent).join("/");
  const video = make("video", { muted: true, playsInline: true, preload: "auto", disablePictureInPicture: true, data: { src: address }, attributes: { "aria-label": `${entry.name}: ${clip.prompt}` } });
  players.set(video, { duration: durationOf(clip), ready: false, since: 0 });
  watcher.observe(video);
  return make("figure", { className: "cell", data: { entry: entry.name } },
    make("div", { className: "screen", attributes: { style: `--aspect: ${width / height}` } }, video),
    make("figcaption", {}, make("strong", {}, entry.name),
      make("span", {}, `${width}×${height}, ${num_frames} frames at ${+fps.toFixed(2)}/s `), make("a", { href: address }, "file")));
}

function showRows() {
  for (const shot of report.shots) {
    const cells = report.entries.map((entry) => showClip(entry, shot)).filter(Boolean);
    const seed = report.seeds > 1 ? make("small", {}, ` seed ${shot.seed}`) : null;
    find("rows").append(make("article", { className: "row", data: { prompt: shot.prompt.toLowerCase() } },
      make("h3", {}, shot.prompt, seed), make("div", { className: "cells" }, ...cells)));
  }
  for (const entry of report.entries) {
    const chip = make("button", { type: "button", onclick: () => {
      chip.setAttribute("aria-pressed", chip.getAttribute("aria-pressed") === "false");
      choose();
    }, attributes: { "aria-pressed": "true" } }, entry.name);
    find("shown").append(chip);
  }
}

// What the search and the chosen models leave.
function choose() {
  const words = find("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const names = [...find("shown").children].filter((chip) => chip.ariaPressed === "true").map((chip) => chip.textContent);
  const found = new Set();
  for (const row of find("rows").children) {
    row.hidden = !words.every((word) => row.dataset.prompt.includes(word));
    if (!row.hidden) found.add(row.dataset.prompt);
    for (const figure of row.querySelectorAll(".cell")) figure.hidden = !names.includes(figure.dataset.entry);
  }
  find("rows").style.setProperty("--shown", Math.max(names.length, 1));
  find("count").textContent = words.length ? `${found.size} of ${count(report.prompts, "prompt")}` : count(report.prompts, "prompt");
  measure();
}

/* The clock. It waits for clips that are late, and clips that are early wait for it. */

const clock = { time: 0, length: 1, speed: 1, playing: false, last: 0 };
const followed = () => [...players].filter(([video, player]) => player.ready && video.checkVisibility());

function measure() {
  const names = [...find("shown").children].filter((chip) => chip.ariaPressed === "true").map((chip) => chip.textContent);
  const lengths = report.clips.filter((clip) => names.includes(clip.name)).map(durationOf);
  clock.length = lengths.length ? Math[find("cut").checked ? "min" : "max"](...lengths) : 1;
  find("time").max = clock.length;
  if (clock.time > clock.length) go(0);
  tell();
}

function seek(video) {
  const { duration } = players.get(video);
  video.playbackRate = clock.speed;
  video.currentTime = Math.min(clock.time + NUDGE, Math.max(duration - frame / 2, 0));
}

function go(time) {
  clock.time = Math.min(Math.max(time, 0), clock.length);
  for (const [video] of followed()) {
    video.pause();
    seek(video);
  }
  tell();
}

function tell() {
  find("time").value = clock.time;
  find("now").textContent = `${clock.time.toFixed(2)} of ${clock.length.toFixed(2)} s`;
}

const isLate = ([video, player]) => clock.time < player.duration - DRIFT && (video.seeking || video.readyState < 3 || video.currentTime < clock.time - DRIFT);

function tick(now) {
  if (!clock.playing) return;
  requestAnimationFrame(tick);
  const clips = followed();
  const late = clips.filter(isLate);
  for (const [video, player] of clips) {
    if (!late.some(([other]) => other === video)) player.since = now;
    else if (now - player.since > LOST) {
      player.since = now; // it missed its turn: it goes on from where the clock is
      seek(video);
    }
  }
  // A busy machine skips frames of the page: the clock must not run away from the clips then.
  if (!late.length) clock.time += Math.min((now - clock.last) / 1000, DRIFT) * clock.speed;
  clock.last = now;
  if (clock.time >= clock.length) go(0);
  for (const [video, player] of clips) {
    const over = clock.time >= player.duration - frame / 2;
    const early = video.currentTime > clock.time + DRIFT;
    if (over || early) video.pause();
    else if (video.paused && !video.seeking && !video.ended) video.play().catch(() => {});
  }
  tell();
}

function play() {
  clock.playing = true;
  clock.last = performance.now();
  for (const [, player] of players) player.since = clock.last;
  requestAnimationFrame(tick);
  say();
}

// All clips then show the same moment.
function stop() {
  clock.playing = false;
  go(clock.time);
  say();
}

function say() {
  document.body.dataset.state = clock.playing ? "playing" : "paused";
  find("play").textContent = clock.playing ? "Pause" : "Play";
}

// To the next frame of the clip that has the most of them; all clips show what they have at that time.
function step(frames) {
  stop();
  const at = Math.round(clock.time / frame) + frames;
  go(Math.min(Math.max(at, 0) * frame, clock.length - frame));
}

const toggle = () => (clock.playing ? stop() : play());

find("play").onclick = toggle;
find("back").onclick = () => step(-1);
find("on").onclick = () => step(1);
find("time").oninput = () => {
  const wanted = Number(find("time").value);
  stop();
  go(wanted);
};
find("speed").onchange = () => {
  clock.speed = Number(find("speed").value);
  for (const [video] of players) video.playbackRate = clock.speed;
};
find("cut").onchange = measure;
find("search").oninput = choose;
document.addEventListener("keydown", (event) => {
  if (event.target.closest("input, select, button, a, summary, .wide") || event.ctrlKey || event.metaKey || event.altKey) return;
  const action = { " ": toggle, ArrowLeft: () => step(-1), ArrowRight: () => step(1) }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});
// Hidden pages get no frames to keep the clock by.
document.addEventListener("visibilitychange", () => document.hidden && clock.playing && stop());

showMeasures();
showModels();
showRest();
showRows();
choose();
if (!matchMedia("(prefers-reduced-motion: reduce)").matches) play();

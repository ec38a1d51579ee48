// One pair at a time: load both clips whole, play them in step, take a choice, and send it until it has arrived.
"use strict";

const session = location.pathname.replace(/\/$/, "");
const find = (id) => document.getElementById(id);
const videos = [...document.querySelectorAll("video")];
const radios = [...document.querySelectorAll("input[name=choice]")];
const [next, pause, replay, alarm] = ["next", "pause", "replay", "alarm"].map(find);

const DRIFT = 0.06; // seconds that the clips may be apart: a frame at 16 a second
const SETTLE = 300; // milliseconds that a clip takes to get going again
const DECODING = 3000; // milliseconds that a browser may take to be ready to play
const PATIENCE = 20000; // milliseconds without a byte after which a connection counts as lost
const AGAIN = 5000; // milliseconds until an answer that did not arrive is sent again

let shown = null; // what the server said is to be shown
let watched = false; // both clips have played to their end once
let busy = false; // an answer is on its way
let since = 0; // when this question was first shown
let watching = 0; // the running check of both clips' clocks
let turns = 0; // of playing and stopping: a later one ends what an earlier one still waits for
let held = null; // the clip that waits for the other one
let released = 0; // when one last did
const fetched = new Map(); // address: a promise of the clip's object URL

/* Storage: what was chosen and has not arrived. Without it (some private windows) answers live as long as the page. */

const KEY = `lumiere-study-answer ${session}`;
let unsent = null;

function keep(answer) {
  unsent = answer;
  try {
    if (answer) localStorage.setItem(KEY, JSON.stringify(answer));
    else localStorage.removeItem(KEY);
  } catch {
    // The page's own memory has it.
  }
}

function kept() {
  try {
    return unsent ?? JSON.parse(localStorage.getItem(KEY));
  } catch {
    return unsent;
  }
}

/* The network */

// An answer that trying again would not change.
class Refused extends Error {
  constructor(message, status = 0) {
    super(message);
    this.status = status;
  }
}

async function ask(path, options = {}) {
  const response = await fetch(session + path, { ...options, cache: "no-store", signal: AbortSignal.timeout(PATIENCE) });
  if (response.status === 409) return response.json(); // an earlier answer stands, from another tab perhaps
  if (response.status >= 400 && response.status < 500) {
    const { detail } = await response.json().catch(() => ({}));
    throw new Refused(typeof detail === "string" ? detail : `The server refused this (${response.status}).`, response.status);
  }
  if (!response.ok) throw new Error(`status ${response.status}`);
  return response.json();
}

async function send() {
  const answer = kept();
  if (!answer) return;
  const headers = { "Content-Type": "application/json" };
  await ask("/answers", { method: "POST", headers, body: JSON.stringify(answer) });
  keep(null);
}

async function download(address, progress) {
  const halt = new AbortController();
  let timer;
  const alive = () => {
    clearTimeout(timer);
    timer = setTimeout(() => halt.abort(), PATIENCE);
  };
  alive();
  try {
    const response = await fetch(address, { signal: halt.signal });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const total = Number(response.headers.get("Content-Length")) || 0;
    const parts = [];
    let size = 0;
    for (const reader = response.body.getReader(); ; ) {
      const { done, value } = await reader.read();
      if (done) break;
      alive();
      parts.push(value);
      size += value.length;
      progress(size, total);
    }
    if (total && size !== total) throw new Error("cut short");
    return URL.createObjectURL(new Blob(parts, { type: "video/mp4" }));
  } finally {
    clearTimeout(timer);
  }
}

// A clip is fetched once: it is there for both questions, and the following pair's comes while this one is watched.
function clip(address, progress = () => {}) {
  if (!fetched.has(address)) {
    const promise = download(address, progress);
    promise.catch(() => fetched.delete(address));
    fetched.set(address, promise);
  }
  return fetched.get(address);
}

function forget(needed) {
  for (const [address, promise] of fetched) {
    if (!needed.includes(address)) {
      fetched.delete(address);
      promise.then(URL.revokeObjectURL, () => {});
    }
  }
}

/* What is wrong, and a way out. It is tried by itself, too. */

let retrying = 0;

function complain(text, again) {
  clearTimeout(retrying);
  alarm.querySelector("span").textContent = text;
  const button = alarm.querySelector("button");
  button.hidden = !again;
  button.onclick = () => {
    clearTimeout(retrying);
    alarm.hidden = true;
    again();
  };
  alarm.hidden = false;
  if (again) retrying = setTimeout(button.onclick, AGAIN);
}

window.addEventListener("online", () => !alarm.hidden && !alarm.querySelector("button").hidden && alarm.querySelector("button").click());

/* Playing in step */

const state = (name) => (document.body.dataset.state = name);

// Some browsers decode nothing before they are told to play: what is whole in memory is then tried all the same.
const decoded = (video) =>
  new Promise((resolve) => {
    if (video.readyState === HTMLMediaElement.HAVE_ENOUGH_DATA) resolve();
    video.addEventListener("canplaythrough", resolve, { once: true });
    setTimeout(resolve, DECODING);
  });

async function ready(video, source) {
  if (video.src === source) return;
  await new Promise((resolve, reject) => {
    video.onloadedmetadata = resolve;
    video.onerror = () => reject(new Refused("This browser cannot play the videos (H.264). Please use another one."));
    video.src = source;
    video.load();
  });
  await decoded(video);
}

// Both from the beginning, from one instant; a pause lasts as long as it is wanted.
async function play({ from = null } = {}) {
  const turn = ++turns;
  cancelAnimationFrame(watching);
  videos.forEach((video) => video.pause());
  held = null;
  if (from !== null) await Promise.all(videos.map((video) => seek(video, from)));
  if (turn !== turns) return;
  try {
    await Promise.all(videos.map((video) => video.play()));
  } catch (error) {
    if (turn !== turns || error.name === "AbortError") return; // paused meanwhile
    state("paused"); // the browser wants a touch first, as some do to save power
    pause.textContent = "Play";
    return;
  }
  if (turn !== turns) return;
  state("playing");
  pause.textContent = "Pause";
  watch();
}

// There, with enough decoded to go on at once.
async function seek(video, time) {
  if (video.currentTime !== time || video.ended) {
    await new Promise((resolve) => {
      video.addEventListener("seeked", resolve, { once: true });
      video.currentTime = time;
    });
  }
  await decoded(video);
}

function watch() {
  const [one, two] = videos;
  if (one.ended && two.ended) {
    allow();
    play({ from: 0 });
    return;
  }
  // The clip that is ahead waits: seeking would take a slow machine longer than what is to be made up for.
  const [ahead, behind] = one.currentTime > two.currentTime ? [one, two] : [two, one];
  const gap = ahead.currentTime - behind.currentTime;
  if (held && (held === behind || behind.ended || gap < DRIFT / 4)) {
    held = null;
    released = performance.now();
  } else if (!held && !ahead.ended && gap > DRIFT && performance.now() - released > SETTLE) {
    held = ahead;
    held.pause();
  }
  // Browsers, too, pause what they think is not looked at.
  for (const video of videos) if (video !== held && video.paused && !video.ended) video.play().catch(() => {});
  watching = requestAnimationFrame(watch);
}

function stop() {
  turns++;
  held = null;
  cancelAnimationFrame(watching);
  videos.forEach((video) => video.pause());
  state("paused");
  pause.textContent = "Play";
}

const toggle = () => (document.body.dataset.state === "playing" ? stop() : play());

// Hidden pages get no frames to check the clocks by.
document.addEventListener("visibilitychange", () => document.hidden && document.body.dataset.state === "playing" && stop());

/* Choosing */

function allow() {
  if (watched) return;
  watched = true;
  radios.forEach((radio) => (radio.disabled = false));
  find("count").textContent = place(); // said again, as now there is something to do
}

function choose(index) {
  if (!watched || busy) return;
  radios[index].checked = true;
  radios[index].focus({ preventScroll: true });
  next.disabled = false;
}

async function confirm() {
  const choice = radios.find((radio) => radio.checked);
  if (!choice || !watched || busy) return;
  const seconds = Math.min((performance.now() - since) / 1000, 86400);
  keep({ pair: shown.pair, question: shown.question, choice: choice.value, seconds });
  lock();
  await advance();
}

function lock() {
  busy = true;
  next.disabled = true;
  radios.forEach((radio) => (radio.disabled = true));
}

/* From one question to the next */

async function advance() {
  busy = true;
  try {
    await send();
    show(await ask("/next"));
  } catch (error) {
    if (error instanceof Refused) {
      // What is malformed will never be taken; what came without its cookie may be, where the cookie is.
      if ([400, 422].includes(error.status)) keep(null);
      complain(error.message, null);
    } else {
      complain(kept() ? "No connection. Your answer is kept here and sent again." : "No connection.", advance);
    }
  }
}

const place = () => {
  const part = shown.questions > 1 ? `, question ${shown.number} of ${shown.questions}` : "";
  return `${shown.position} of ${shown.total}${part}`;
};

async function show(what) {
  alarm.hidden = true;
  if (what.done) return finish(what);
  const same = shown?.pair === what.pair;
  shown = what;
  watched = busy = false;
  next.disabled = true;
  radios.forEach((radio) => {
    radio.checked = false;
    radio.disabled = true;
  });
  find("ask").textContent = what.ask;
  find("prompt").textContent = what.prompt ?? "";
  find("prompt").hidden = !what.prompt;
  find("count").textContent = place();
  find("ask").focus({ preventScroll: true }); // so that it is read out, and keys don't go to a disabled button
  find("bar").max = what.total;
  find("bar").value = what.position - 1 + (what.number - 1) / what.questions;
  layout();
  if (same) {
    allow(); // both clips were watched for the first question
    since = performance.now();
    return;
  }
  await load();
}

async function load() {
  const what = shown;
  turns++;
  cancelAnimationFrame(watching);
  videos.forEach((video) => video.pause());
  state("loading");
  [pause, replay].forEach((button) => (button.disabled = true));
  find("over").hidden = false;
  const sizes = what.clips.map(() => [0, 0]);
  const progress = (index) => (size, total) => {
    sizes[index] = [size, total];
    const whole = sizes.every((pair) => pair[1]);
    const [got, of] = [0, 1].map((k) => sizes.reduce((sum, pair) => sum + pair[k], 0));
    find("loaded").value = whole ? got / of : 0;
    find("loading").textContent = whole ? `Loading the videos: ${Math.floor((100 * got) / of)} %` : "Loading the videos";
  };
  try {
    const sources = await Promise.all(what.clips.map((address, index) => clip(address, progress(index))));
    if (what !== shown) return;
    await Promise.all(videos.map((video, index) => ready(video, sources[index])));
  } catch (error) {
    if (error instanceof Refused) complain(error.message, null);
    else complain("The videos could not be loaded: no connection.", () => ((alarm.hidden = true), load()));
    return;
  }
  find("over").hidden = true;
  [pause, replay].forEach((button) => (button.disabled = false));
  since = performance.now();
  layout();
  await play({ from: 0 });
  forget([...what.clips, ...what.following]);
  what.following.forEach((address) => clip(address).catch(() => {}));
}

function finish({ code, turk }) {
  find("rate").hidden = true;
  find("done").hidden = false;
  find("code").textContent = code;
  state("done");
  if (turk) {
    find("say").textContent = "Submit the HIT to be paid. Your code goes with it:";
    const form = find("turk");
    form.action = turk.submit_to;
    form.elements.assignmentId.value = turk.assignment;
    form.elements.code.value = code;
    form.hidden = false;
  }
  document.querySelector("#done h1").focus();
}

// Side by side or one above the other: whichever shows the clips larger.
function layout() {
  if (!shown) return;
  const { clientWidth: width, clientHeight: height } = find("stage");
  const name = 40; // pixels of a side's label
  const area = (w, h) => Math.min(w, h * shown.aspect);
  const row = area(width / 2, height - name);
  const column = area(width - 1.5 * name, height / 2);
  find("pair").dataset.layout = column > row ? "column" : "row";
}

/* Hands: mouse, touch and keys */

radios.forEach((radio, index) => radio.addEventListener("change", () => choose(index)));
next.addEventListener("click", confirm);
pause.addEventListener("click", toggle);
replay.addEventListener("click", () => play({ from: 0 }));
window.addEventListener("resize", layout);

const KEYS = { 1: 0, ArrowLeft: 0, ArrowUp: 0, 2: 1, ArrowRight: 1, ArrowDown: 1 };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !find("done").hidden) return;
  if (event.key === "Enter" && event.target.tagName === "BUTTON") return; // it presses the button that has the focus
  if (event.key in KEYS) choose(KEYS[event.key]);
  else if (event.key === "Enter") confirm();
  else if (event.key === "r" || event.key === "R") replay.disabled || play({ from: 0 });
  else if (event.key === " " && event.target.tagName !== "BUTTON") pause.disabled || toggle();
  else return;
  event.preventDefault();
});

try {
  localStorage.setItem("lumiere-study-session", session);
} catch {
  // Then the first page does not know the way back; the address of this one does.
}
advance();

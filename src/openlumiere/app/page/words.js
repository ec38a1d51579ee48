/** Times, sizes and states in words. */

export function duration(seconds) {
  if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

export function ago(time) {
  const seconds = Date.now() / 1000 - time;
  if (seconds < 60) return "just now";
  if (seconds < 86_400) return `${duration(seconds)} ago`;
  return new Date(time * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short", year: "numeric" });
}

/** "5 s", "2.5 s". */
export const seconds = (count) => `${Math.round(count * 10) / 10} s`;

/** A month as "2026-11" in words. */
export const monthOf = (text) => new Date(`${text}-01T12:00`).toLocaleDateString(undefined, { month: "long", year: "numeric" });

/** A small chance in words: "1 in a million", "1 in 20 billion"; the tiniest are "1 in a trillion". */
export function oneIn(chance) {
  const count = Math.min(1 / chance, 1e12);
  const words = new Intl.NumberFormat("en", { notation: "compact", compactDisplay: "long", maximumSignificantDigits: 1 }).format(count);
  return `1 in ${words.replace(/^1 (?=[a-z])/, "a ")}`;
}

const STAGES = {
  read: "Reading", text: "Reading the prompt", denoise: "Drawing", sharpen: "Sharpening", write: "Saving",
  sticker: "Fitting the sticker",
};

/** What a running video is doing, in a line. */
export function doing(video) {
  if (video.status === "queued") {
    return video.position > 0 ? `Waiting: ${video.position} before it` : "Next in the queue";
  }
  const words = [STAGES[video.stage] ?? "Starting"];
  if (video.total_steps > 1) words.push(`step ${video.step} of ${video.total_steps}`);
  if (video.seconds_left !== null && video.seconds_left !== undefined) words.push(`${duration(video.seconds_left)} left`);
  return words.join(" · ");
}

/** What a finished video is, in a line. */
export function about(video, { size = true } = {}) {
  const words = [];
  if (size && video.width) words.push(`${video.width} × ${video.height}`);
  if (video.num_frames && video.fps) words.push(`${(video.num_frames / video.fps).toFixed(1)} s`);
  if (size && video.fps) words.push(`${Math.round(video.fps * 100) / 100} fps`);
  if (video.loop) words.push("loop");
  if (video.transparent) words.push("transparent");
  return words.join(" · ");
}

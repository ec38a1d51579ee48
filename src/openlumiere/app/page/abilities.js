/** What a model can do, as GET /v1/videos/models tells it. */

/** Whether a model has something beyond tasks and styles: "transparent", "path", or a second stage to "sharpen". */
export const offers = (model, what) => (what === "sharpen" ? model.scale > 1 : Boolean(model[what]));

/** The lengths that a model's clips may have, in frames, as a slider's `{min, max, step}`. */
export function lengths(model, most) {
  const { frame_multiple: multiple, frame_offset: offset, num_frames: usual } = model;
  const step = model.window_frames ? multiple * Math.ceil(8 / multiple) : multiple;  // long clips need no finer steps
  const min = offset + step * Math.max(Math.ceil((Math.min(8, usual / 2) - offset) / step), offset ? 0 : 1);
  return { min, max: Math.max(Math.min(most, model.max_frames ?? most), usual), step };
}

/** What is to be known of a model before it is used: that it cannot be, its licence, and what that forbids. */
export const terms = ({ error, licence, commercial }) =>
  [error && `It could not be loaded: ${error}`, licence, commercial === false && "non-commercial"].filter(Boolean).join(" · ");

/** Whether an example shows what a model of a small vocabulary was never taught, or ends as it cannot. */
export const isForeign = (model, { subject, files }, task) => Boolean(
  (subject && model.subjects?.length && !model.subjects.includes(subject))
  || (files?.last ? !model.last_frame : task.last && model.last_frame_needed));
